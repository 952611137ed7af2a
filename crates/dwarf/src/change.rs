//! A difference between the layouts of one type in two builds.

use std::fmt;

use serde::Serialize;

/// What a name belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TypeKind {
    /// `struct name`
    Struct,
    /// `union name`
    Union,
    /// `enum name`
    Enum,
    /// A name of its own, also for a structure without a tag.
    Typedef,
}

impl fmt::Display for TypeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TypeKind::Struct => "struct",
            TypeKind::Union => "union",
            TypeKind::Enum => "enum",
            TypeKind::Typedef => "typedef",
        })
    }
}

/// What was at the place of an added member before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Room {
    /// Padding, also where it is an array or number that is named as padding. Live objects hold zero or
    /// garbage there.
    Hole,
    /// Bits that the original source reserves: an unnamed bit-field between others, or one that is named
    /// as reserved.
    Reserved,
    /// Members that are still there, at the same place: another view of the same bytes.
    Shared,
    /// Members that moved or went away.
    Displaced,
    /// Nothing: live objects end before it.
    Beyond,
}

/// Why a change does no harm to objects that are already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Harmless {
    /// Another name for the same type at the same place, or for the same value.
    Renamed,
    /// One of several names for the same type at the same place, or for the same value.
    OneOfSeveralNames,
    /// Reserved bits got a name.
    ReservedBitsNamed,
    /// Fewer bits are reserved, or fewer bytes are padding; what took their place has its own change.
    ReservedShrank,
    /// A value that no object can hold yet, in an enumeration of the same size.
    EnumeratorAppended,
    /// The last enumerator, by its name a bound and not a value, gave way to new ones. Arrays that it
    /// bounds are compared where they stand.
    EndMarkerMoved,
    /// Only what is held by value changed, and that change is harmless.
    InnerIsHarmless,
}

impl fmt::Display for Harmless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Harmless::Renamed => "renamed with the same type at the same place",
            Harmless::OneOfSeveralNames => "another name has the same type at the same place",
            Harmless::ReservedBitsNamed => "reserved bits were named",
            Harmless::ReservedShrank => "nothing uses what is set aside",
            Harmless::EnumeratorAppended => "no object can hold the new value yet, and the size is the same",
            Harmless::EndMarkerMoved => "it bounds the enumeration and is not a value",
            Harmless::InnerIsHarmless => "the change of the type inside is harmless",
        })
    }
}

/// What differs. Offsets are in bits from the start of the type, sizes in bytes unless they are called
/// bits. Members of untagged structures are named by their path: `pos.x`, `slots[].x`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the fields are described above, once for all variants")]
pub enum What {
    /// The size of the type.
    SizeChanged { from: u64, to: u64 },
    /// The alignment that the source asks for (bytes, 0 for none).
    AlignmentChanged { from: u32, to: u32 },
    /// A member stands elsewhere; `following` further ones behind it moved by as much.
    MemberMoved { member: String, from_bit: i64, to_bit: i64, following: u32 },
    /// A member has another type; types as C writes them, bit-fields with `:width`.
    MemberTypeChanged { member: String, from: String, to: String },
    /// A member has a type of the same name, but that type itself changed.
    MemberTypeLayout { member: String, type_name: String },
    /// A member that was not there. `bits` is its size.
    MemberAdded { member: String, at_bit: i64, bits: i64, room: Room },
    /// A member that is not there any more. `bits` is its size.
    MemberRemoved { member: String, at_bit: i64, bits: i64 },
    /// A member with the same type at the same place has another name.
    MemberRenamed { from: String, to: String, at_bit: i64 },
    /// An enumerator has another value.
    EnumeratorChanged { enumerator: String, from: i128, to: i128 },
    /// An enumerator that was not there.
    EnumeratorAdded { enumerator: String, value: i128 },
    /// An enumerator that is not there any more.
    EnumeratorRemoved { enumerator: String, value: i128 },
    /// An enumerator with the same value has another name.
    EnumeratorRenamed { from: String, to: String, value: i128 },
    /// A typedef stands for another type.
    TypedefTarget { from: String, to: String },
    /// The type differs, and is too large or too deeply nested to say how.
    NotComparable,
}

/// A difference between the layouts of one type in two builds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LayoutChange {
    /// What `name` belongs to.
    pub kind: TypeKind,
    /// Without `struct` and the like.
    pub name: String,
    /// What differs.
    pub change: What,
    /// File and line of the member or type in the original source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_line: Option<(String, u32)>,
    /// File and line of the member or type in the patched source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patched_line: Option<(String, u32)>,
    /// Set if objects that are already there stay right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub harmless: Option<Harmless>,
    /// The type that is held by value and has changes of its own, where this one is nothing but their consequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner: Option<(TypeKind, String)>,
}

impl LayoutChange {
    /// Whether a member was put into padding, which live objects do not initialise: not harmless as such,
    /// yet nothing else moves.
    pub fn is_hole_filled(&self) -> bool {
        matches!(self.change, What::MemberAdded { room: Room::Hole, .. })
    }

    /// Whether that member is less than a byte, or more than whole bytes.
    pub fn is_bit_in_hole(&self) -> bool {
        matches!(self.change, What::MemberAdded { room: Room::Hole, bits, .. } if bits % 8 != 0)
    }

    /// Whether a member leads to functions with other arguments or results, as the types in words tell.
    pub fn is_signature(&self) -> bool {
        match &self.change {
            What::MemberTypeChanged { from, to, .. } => [from, to].iter().all(|words| words.contains("(*)(")),
            _ => false,
        }
    }

    /// Whether a member is gone.
    pub fn is_removal(&self) -> bool {
        matches!(self.change, What::MemberRemoved { .. })
    }

    /// Whether nothing but a place or a size is another.
    pub fn is_move(&self) -> bool {
        matches!(self.change, What::MemberMoved { .. } | What::SizeChanged { .. })
    }

    /// Whether a member was put beside those of a union, which are as they were: not harmless as such, since live
    /// objects hold one of those.
    pub fn is_beside_others(&self) -> bool {
        matches!(self.change, What::MemberAdded { room: Room::Shared, .. })
    }
}

/// One line in words: `struct vcpu: member foo moved from offset 16 to 24 bytes`.
pub fn render(change: &LayoutChange) -> String {
    format!("{} {}: {}", change.kind, change.name, change.change)
}

/// An offset in words: `offset 4`, `bit 3 of byte 4`.
fn place(bits: i64) -> String {
    match (bits.div_euclid(8), bits.rem_euclid(8)) {
        (byte, 0) => format!("offset {byte}"),
        (byte, bit) => format!("bit {bit} of byte {byte}"),
    }
}

/// `5 bytes`, `1 byte`, `3 bits`.
fn size(bits: i64) -> String {
    match (bits % 8, bits / 8) {
        (0, 1) => "1 byte".into(),
        (0, bytes) => format!("{bytes} bytes"),
        _ if bits == 1 => "1 bit".into(),
        _ => format!("{bits} bits"),
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::SizeChanged { from, to } => write!(f, "size changed from {from} to {to} bytes"),
            What::AlignmentChanged { from, to } => {
                write!(f, "requested alignment changed from {from} to {to} bytes")
            }
            What::MemberMoved { member, from_bit, to_bit, following } => {
                let (from, to) = (*from_bit, *to_bit);
                if from % 8 == 0 && to % 8 == 0 {
                    write!(f, "member {member} moved from offset {} to {} bytes", from / 8, to / 8)?;
                } else {
                    write!(f, "member {member} moved from {} to {}", place(from), place(to))?;
                }
                match following {
                    0 => Ok(()),
                    1 => f.write_str(", and the one after it by as much"),
                    more => write!(f, ", and {more} after it by as much"),
                }
            }
            What::MemberTypeChanged { member, from, to } => {
                write!(f, "type of member {member} changed from {from} to {to}")
            }
            What::MemberTypeLayout { member, type_name } => {
                write!(f, "member {member} holds {type_name}, whose layout changed")
            }
            What::MemberAdded { member, at_bit, bits, room } => {
                write!(f, "member {member} ({}) added at {}", size(*bits), place(*at_bit))?;
                f.write_str(match room {
                    Room::Hole => " in a hole",
                    Room::Reserved => " in reserved bits",
                    Room::Shared => " over members that stay",
                    Room::Displaced => "",
                    Room::Beyond => " behind the original end",
                })
            }
            What::MemberRemoved { member, at_bit, bits } => {
                write!(f, "member {member} ({}) removed from {}", size(*bits), place(*at_bit))
            }
            What::MemberRenamed { from, to, at_bit } => {
                write!(f, "member {from} at {} renamed to {to}", place(*at_bit))
            }
            What::EnumeratorChanged { enumerator, from, to } => {
                write!(f, "enumerator {enumerator} changed from {from} to {to}")
            }
            What::EnumeratorAdded { enumerator, value } => {
                write!(f, "enumerator {enumerator} added with value {value}")
            }
            What::EnumeratorRemoved { enumerator, value } => {
                write!(f, "enumerator {enumerator} with value {value} removed")
            }
            What::EnumeratorRenamed { from, to, value } => {
                write!(f, "enumerator {from} with value {value} renamed to {to}")
            }
            What::TypedefTarget { from, to } => write!(f, "stands for {to} instead of {from}"),
            What::NotComparable => f.write_str("differs, and is too large to say how"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_hold_every_value_of_an_enumerator() {
        let change = LayoutChange {
            kind: TypeKind::Enum,
            name: "e".into(),
            change: What::EnumeratorChanged { enumerator: "A".into(), from: -1, to: i128::from(u64::MAX) },
            base_line: None,
            patched_line: Some(("xen/common/e.c".into(), 3)),
            harmless: None,
            inner: None,
        };
        assert_eq!(
            serde_json::to_string(&change).expect("a report"),
            r#"{"kind":"enum","name":"e","change":{"what":"enumerator-changed","enumerator":"A","from":-1,"to":18446744073709551615},"patched_line":["xen/common/e.c",3]}"#
        );
        assert_eq!(render(&change), "enum e: enumerator A changed from -1 to 18446744073709551615");
    }
}
