//! The debug information of one object.

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::Error;
use crate::elf::Sections;
use crate::hash::Print;
use crate::lines::Rows;
use crate::lookup::Lookup;
use crate::model::{Kind, Model, Text, VOID};
use crate::parse::parse;
use crate::shape::{self, Shapes, shapes};

/// The debug information of one object: types, declarations and source lines.
///
/// Does not borrow from the object. Source lines are decoded when they are first asked for.
#[derive(Debug)]
pub struct DebugInfo {
    pub(crate) sections: Sections,
    pub(crate) model: Model,
    pub(crate) shapes: Shapes,
    /// Definitions of named types, sorted.
    pub(crate) named: Vec<Named>,
    pub(crate) tree: Option<Box<str>>,
    /// Paths of the files of each unit, by number.
    pub(crate) files: OnceLock<Vec<Vec<Box<str>>>>,
    pub(crate) rows: OnceLock<Rows>,
    functions: OnceLock<Lookup>,
    variables: OnceLock<Lookup>,
}

/// A definition that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    /// Of its kind and name.
    pub key: Print,
    /// Of what is compared.
    pub print: Print,
    pub ty: u32,
}

/// Types and the bytes that hold their names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Object<'a> {
    pub model: &'a Model,
    pub data: &'a [u8],
}

/// Reads names.
pub(crate) trait Names<'a> {
    fn bytes(self, text: Text) -> &'a [u8];
    fn text(self, text: Text) -> Cow<'a, str>;
}

impl<'a> Names<'a> for Object<'a> {
    fn bytes(self, text: Text) -> &'a [u8] {
        let start = text.start as usize;
        self.data.get(start..start + text.len as usize).unwrap_or_default()
    }

    fn text(self, text: Text) -> Cow<'a, str> {
        String::from_utf8_lossy(self.bytes(text))
    }
}

impl DebugInfo {
    /// Reads the debug information of a relocatable object (ELF64, little-endian, x86-64 or arm64).
    ///
    /// `None` if it has no `.debug_info`.
    ///
    /// # Errors
    /// If it is not such an object, or its debug information is compressed, split or malformed.
    pub fn read(object_bytes: &[u8]) -> Result<Option<DebugInfo>, Error> {
        let Some(sections) = Sections::read(object_bytes)? else { return Ok(None) };
        let model = parse(&sections)?;
        let object = Object { model: &model, data: &sections.data };
        let shapes = shapes(object)?;
        let named = named(object, &shapes);
        Ok(Some(DebugInfo {
            sections,
            model,
            shapes,
            named,
            tree: None,
            files: OnceLock::new(),
            rows: OnceLock::new(),
            functions: OnceLock::new(),
            variables: OnceLock::new(),
        }))
    }

    /// Gives source files relative to this directory, an absolute path without `..`.
    ///
    /// Without it they are given relative to the directory in which the compiler ran.
    pub fn with_tree(mut self, tree: &str) -> DebugInfo {
        self.tree = Some(tree.trim_end_matches('/').into());
        self.files = OnceLock::new();
        self.rows = OnceLock::new();
        self
    }

    pub(crate) fn object(&self) -> Object<'_> {
        Object { model: &self.model, data: &self.sections.data }
    }

    pub(crate) fn text(&self, text: Text) -> Cow<'_, str> {
        self.object().text(text)
    }

    /// All functions of the model, to be looked up in.
    pub(crate) fn functions(&self) -> &Lookup {
        self.functions.get_or_init(|| Lookup::of(self.object(), &self.model.functions))
    }

    /// All variables of the model, to be looked up in.
    pub(crate) fn variables(&self) -> &Lookup {
        self.variables.get_or_init(|| Lookup::of(self.object(), &self.model.variables))
    }

    /// All definitions of a name, in the order of their fingerprints.
    pub(crate) fn definitions(&self, kind: Kind, name: &str) -> &[Named] {
        let key = shape::key(kind, name.as_bytes());
        let start = self.named.partition_point(|n| n.key < key);
        let rest = &self.named[start..];
        &rest[..rest.partition_point(|n| n.key == key)]
    }
}

fn named(object: Object<'_>, shapes: &Shapes) -> Vec<Named> {
    let mut named = Vec::new();
    for (index, ty) in object.model.types.iter().enumerate() {
        if ty.name.is_empty() || ty.declaration {
            continue;
        }
        let print = match ty.kind {
            Kind::Struct | Kind::Union => shapes.layout[index],
            Kind::Enum => shape::enumerators(object, index as u32),
            Kind::Typedef => typedef_print(object, shapes, ty.target),
            _ => continue,
        };
        named.push(Named { key: shape::key(ty.kind, object.bytes(ty.name)), print, ty: index as u32 });
    }
    named.sort_unstable();
    // One definition of each kind is enough: units of a linked object repeat their headers.
    named.dedup_by_key(|n| (n.key, n.print));
    named
}

/// A typedef answers for what has no other name; the rest is compared under its own.
fn typedef_print(object: Object<'_>, shapes: &Shapes, target: u32) -> Print {
    let inner = object.model.unqualified(target);
    if inner == VOID {
        return Print::default();
    }
    if object.model.types[inner as usize].is_anonymous() {
        return shapes.layout[inner as usize];
    }
    shapes.reference[inner as usize]
}
