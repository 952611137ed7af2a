//! Prototypes of functions and types of variables in two builds.

use crate::agree::{Of, agree, is_void};
use crate::describe::{describe, resolved};
use crate::info::DebugInfo;
use crate::lookup::Lookup;
use crate::model::{Entity, Kind, Member, MemberKind};

/// A function or variable whose type is another in the second of two objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeChange {
    /// The type as C writes it: `int f(int)`, `int (*v)(int)` without the name.
    pub from: String,
    /// The other one.
    pub to: String,
    /// Whether a function only lost parameters at its end: who still passes them does no harm by that alone, since
    /// the caller saves those registers, and takes its own arguments off the stack (System V ABI, 3.2.2).
    pub only_fewer: bool,
}

impl DebugInfo {
    /// How the prototype of a function differs from that of another function in another object: number, sizes and
    /// classes of parameters and result, and what pointers lead to.
    ///
    /// A result where there was none is no difference, since nobody reads it. `None` too if one of them is not
    /// described. A declaration counts where there is no definition.
    pub fn prototype_change(&self, name: &str, other: &DebugInfo, other_name: &str) -> Option<TypeChange> {
        let (old, new) = (self.function(name)?, other.function(other_name)?);
        let (before, after) = (self.parameters_of(old), other.parameters_of(new));
        let result = (Of { info: self, ty: old.result }, Of { info: other, ty: new.result });
        let register = new_result_is_harmless(result.1);
        let same_result = agree(result.0, result.1) || (is_void(result.0) && register);
        let same = |(a, b): (&Member, &Member)| {
            a.kind == b.kind
                && (a.kind != MemberKind::Parameter
                    || agree(Of { info: self, ty: a.target }, Of { info: other, ty: b.target }))
        };
        let prefix = same_result && before.iter().zip(after).all(same);
        if prefix && before.len() == after.len() {
            return None;
        }
        let variadic = |all: &[Member]| all.iter().any(|member| member.kind == MemberKind::Variadic);
        Some(TypeChange {
            from: self.prototype(name, old),
            to: other.prototype(other_name, new),
            only_fewer: prefix && after.len() < before.len() && !variadic(before),
        })
    }

    /// How the type of a static or global variable differs from that of another variable in another object: other
    /// numbers of the same size, names and qualifiers do not count, nor does a structure around a single number.
    ///
    /// `None` too if one of them is not described, or if there are several of that name.
    pub fn variable_change(&self, name: &str, other: &DebugInfo, other_name: &str) -> Option<TypeChange> {
        let (old, new) = (self.variable_type(name)?, other.variable_type(other_name)?);
        let (a, b) = (self.inside(old), other.inside(new));
        let same = agree(Of { info: self, ty: old }, Of { info: other, ty: new })
            || agree(Of { info: self, ty: a }, Of { info: other, ty: b });
        if same {
            return None;
        }
        let words = (describe(self, old), describe(other, new));
        // The same words, so look behind them.
        let (from, to) = if words.0 == words.1 {
            (describe(self, resolved(self, old)), describe(other, resolved(other, new)))
        } else {
            words
        };
        Some(TypeChange { from, to, only_fewer: false })
    }

    /// The type of the one variable of that name that is defined here.
    pub(crate) fn variable_type(&self, name: &str) -> Option<u32> {
        let all = self.variables().named(self.object(), &self.model.variables, name);
        let mut defined = all.filter(|variable| !variable.declaration);
        let first = defined.next()?;
        defined.next().is_none().then_some(first.result)
    }

    fn function(&self, name: &str) -> Option<&Entity> {
        let lookup: &Lookup = self.functions();
        let all = || lookup.named(self.object(), &self.model.functions, name);
        all().find(|function| !function.declaration).or_else(|| all().next())
    }

    fn parameters_of(&self, function: &Entity) -> &[Member] {
        let (first, end) = function.parameters;
        self.model.members.get(first as usize..end as usize).unwrap_or_default()
    }

    fn prototype(&self, name: &str, function: &Entity) -> String {
        let words = |member: &Member| match member.kind {
            MemberKind::Variadic => "...".to_owned(),
            _ => describe(self, member.target),
        };
        let all: Vec<String> = self.parameters_of(function).iter().map(words).collect();
        let list = if all.is_empty() { "void".to_owned() } else { all.join(", ") };
        let result = describe(self, function.result);
        let space = if result.ends_with('*') { "" } else { " " };
        format!("{result}{space}{name}({list})")
    }

    /// The only member of a structure that is nothing but that, as `atomic_t` is; else the type itself.
    fn inside(&self, ty: u32) -> u32 {
        let mut ty = ty;
        for _ in 0..64 {
            let Some(this) = self.model.types.get(ty as usize) else { break };
            match this.kind {
                Kind::Typedef | Kind::Qualifier => ty = this.target,
                Kind::Struct => match self.model.members_of(ty) {
                    [only] if only.bits.is_none() => ty = only.target,
                    _ => break,
                },
                _ => break,
            }
        }
        ty
    }
}

/// A result in registers, which who expects none does not read; the address of a bigger one is an argument.
fn new_result_is_harmless(result: Of<'_>) -> bool {
    let size = result.info.shapes.size.get(result.ty as usize).copied().flatten();
    size.is_some_and(|bytes| bytes <= 16)
}
