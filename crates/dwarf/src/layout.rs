//! Layouts of single types, for those who read structures of the tree.

use serde::Serialize;

use crate::DebugInfo;
use crate::describe::describe;
use crate::flatten::flatten;
use crate::model::Kind;

/// Members that are listed at most.
const MAX_FIELDS: usize = 100_000;

/// The layout of a structure or union.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// In bytes.
    pub size: u64,
    /// In the order of the source. Members of untagged structures inside are listed by their path behind
    /// the one that holds them: `pos`, `pos.x`.
    pub fields: Vec<Field>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Its name, or path through untagged structures.
    pub name: String,
    /// From the start of the outermost structure, in bits; of an array element for those behind `[]`, in
    /// the first element.
    pub at_bit: u64,
    /// In bits; 0 for a flexible array.
    pub bits: u64,
    /// As C writes it: `unsigned long[4]`.
    pub type_name: String,
}

impl Layout {
    /// The member of that name or path.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }
}

impl DebugInfo {
    /// The layout of `struct name`, or of a typedef of that name for a structure or union without a tag.
    ///
    /// `None` if the object does not define it, or defines it in several ways.
    pub fn struct_layout(&self, name: &str) -> Option<Layout> {
        let structs = self.definitions(Kind::Struct, name);
        let typedefs = self.definitions(Kind::Typedef, name);
        let ty = match (structs, typedefs) {
            ([one], _) => one.ty,
            ([], [one]) => self.model.unqualified(self.model.types[one.ty as usize].target),
            _ => return None,
        };
        let this = self.model.types.get(ty as usize).filter(|t| t.is_aggregate())?;
        let mut budget = MAX_FIELDS;
        let fields = flatten(self, ty, &mut budget)?
            .into_iter()
            .map(|leaf| Field {
                at_bit: leaf.at.max(0) as u64,
                bits: leaf.size as u64,
                type_name: describe(self, leaf.ty),
                name: leaf.path,
            })
            .collect();
        Some(Layout { size: this.size?, fields })
    }

    /// Names of all structures that the object defines, sorted.
    pub fn struct_names(&self) -> Vec<String> {
        let of_kind = |ty: u32| &self.model.types[ty as usize];
        let mut names: Vec<String> = self
            .named
            .iter()
            .map(|n| of_kind(n.ty))
            .filter(|t| t.kind == Kind::Struct)
            .map(|t| self.text(t.name).into_owned())
            .collect();
        names.sort();
        names.dedup();
        names
    }
}
