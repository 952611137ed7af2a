//! Which registers a function's arguments and its result take.

use crate::DebugInfo;
use crate::model::{Entity, Kind, MemberKind, VOID};

/// Registers that integers and pointers are passed in (System V ABI for x86-64, 3.2.3).
const ARGUMENT_REGISTERS: usize = 6;

/// What a call of a function passes in registers, by its declaration (System V ABI for x86-64, 3.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// How many of RDI, RSI, RDX, RCX, R8 and R9 may hold arguments, in that order.
    pub arguments: usize,
    /// Whether RAX holds a result.
    pub result: bool,
    /// Whether RDX holds the second half of a result.
    pub wide_result: bool,
}

impl DebugInfo {
    /// The signature of a function, as far as its declarations and definitions in this object agree: the most
    /// registers that any of them uses.
    ///
    /// `None` if nothing here says it.
    pub fn signature(&self, name: &str) -> Option<Signature> {
        let named = self.functions().named(self.object(), &self.model.functions, name);
        named.map(|function| self.signature_of(function)).reduce(|a, b| Signature {
            arguments: a.arguments.max(b.arguments),
            result: a.result || b.result,
            wide_result: a.wide_result || b.wide_result,
        })
    }

    fn signature_of(&self, function: &Entity) -> Signature {
        let (first, end) = function.parameters;
        let parameters = self.model.members.get(first as usize..end as usize).unwrap_or_default();
        let mut arguments = 0;
        for parameter in parameters {
            arguments += match parameter.kind {
                MemberKind::Variadic => ARGUMENT_REGISTERS,
                _ => registers(self.bytes_of(parameter.target)),
            };
        }
        let result = self.bytes_of(function.result);
        // The address of a big result is an argument, and is given back.
        arguments += usize::from(result.is_none_or(|bytes| bytes > 16));
        Signature {
            arguments: arguments.min(ARGUMENT_REGISTERS),
            result: result != Some(0),
            wide_result: result.is_none_or(|bytes| (9..=16).contains(&bytes)),
        }
    }

    /// Size of a type in bytes, 0 for `void`; `None` where it is not said.
    fn bytes_of(&self, mut ty: u32) -> Option<u64> {
        for _ in 0..64 {
            if ty == VOID {
                return Some(0);
            }
            let found = self.model.types.get(ty as usize)?;
            match (found.kind, found.size) {
                (Kind::Pointer, _) => return Some(8),
                (_, Some(size)) => return Some(size),
                (Kind::Typedef | Kind::Qualifier | Kind::Enum, None) => ty = found.target,
                _ => return None,
            }
        }
        None
    }
}

/// Registers that an argument of that many bytes takes: none where it is passed on the stack.
fn registers(bytes: Option<u64>) -> usize {
    match bytes {
        Some(0..=8) => 1,
        Some(17..) => 0,
        // Two, also where the size is not known.
        _ => 2,
    }
}
