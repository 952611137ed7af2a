//! Types in words, as C writes them.

use crate::info::{DebugInfo, Names};
use crate::model::{Kind, MemberKind, VOID};

/// Names of real types are shorter than this many bytes; what is left of longer ones is cut.
const MAX_LENGTH: usize = 240;
/// Pointers, arrays and parameters inside of each other.
const MAX_DEPTH: u32 = 12;

/// The type as C writes it without a variable: `unsigned long[4]`, `int (*)(struct s *)`.
pub(crate) fn describe(info: &DebugInfo, ty: u32) -> String {
    let mut text = write(info, ty, String::new(), MAX_DEPTH);
    if text.len() > MAX_LENGTH {
        let mut end = MAX_LENGTH;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// `inner` is the declarator so far.
fn write(info: &DebugInfo, ty: u32, inner: String, depth: u32) -> String {
    if depth == 0 || inner.len() > MAX_LENGTH {
        return format!("...{inner}");
    }
    let ty = info.model.unqualified(ty);
    if ty == VOID {
        return join("void", &inner);
    }
    let this = &info.model.types[ty as usize];
    match this.kind {
        Kind::Pointer => write(info, this.target, format!("*{inner}"), depth - 1),
        Kind::Array => {
            let mut declarator = if inner.starts_with('*') { format!("({inner})") } else { inner };
            for member in info.model.members_of(ty) {
                if declarator.len() > MAX_LENGTH {
                    break;
                }
                if member.kind == MemberKind::Dimension {
                    match member.at {
                        ..0 => declarator.push_str("[]"),
                        count => declarator.push_str(&format!("[{count}]")),
                    }
                }
            }
            write(info, this.target, declarator, depth - 1)
        }
        Kind::Function => {
            let declarator = if inner.is_empty() { inner } else { format!("({inner})") };
            let parameters = parameters(info, ty, depth);
            write(info, this.target, format!("{declarator}({parameters})"), depth - 1)
        }
        _ => join(&tagged(info, ty), &inner),
    }
}

fn parameters(info: &DebugInfo, ty: u32, depth: u32) -> String {
    let mut list = String::new();
    for member in info.model.members_of(ty) {
        if list.len() > MAX_LENGTH {
            break;
        }
        if !list.is_empty() {
            list.push_str(", ");
        }
        match member.kind {
            MemberKind::Variadic => list.push_str("..."),
            _ => list.push_str(&write(info, member.target, String::new(), depth - 1)),
        }
    }
    if list.is_empty() { "void".into() } else { list }
}

fn join(name: &str, inner: &str) -> String {
    match inner.chars().next() {
        None => name.into(),
        Some('[') => format!("{name}{inner}"),
        Some(_) => format!("{name} {inner}"),
    }
}

/// Name with tag: `struct vcpu`, `uint32_t`.
pub(crate) fn tagged(info: &DebugInfo, ty: u32) -> String {
    let this = &info.model.types[ty as usize];
    let tag = match this.kind {
        Kind::Struct => "struct ",
        Kind::Union => "union ",
        Kind::Enum => "enum ",
        _ => "",
    };
    let name = info.object().text(this.name);
    if this.kind == Kind::Base {
        return spelling(&name).into();
    }
    if name.is_empty() { format!("{tag}{{...}}") } else { format!("{tag}{name}") }
}

/// Compilers spell the same basic type in different ways.
fn spelling(name: &str) -> &str {
    match name {
        "short int" => "short",
        "short unsigned int" => "unsigned short",
        "long int" => "long",
        "long unsigned int" => "unsigned long",
        "long long int" => "long long",
        "long long unsigned int" => "unsigned long long",
        other => other,
    }
}

/// The type behind typedefs, as far as it has another name.
pub(crate) fn resolved(info: &DebugInfo, mut ty: u32) -> u32 {
    for _ in 0..64 {
        ty = info.model.unqualified(ty);
        let Some(this) = info.model.types.get(ty as usize).filter(|t| t.kind == Kind::Typedef) else { break };
        let target = info.model.unqualified(this.target);
        if info.model.types.get(target as usize).is_some_and(|t| t.is_anonymous()) {
            break;
        }
        ty = target;
    }
    ty
}
