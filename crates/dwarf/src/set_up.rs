//! What of a variable has to be set up before it is used.

use crate::info::{DebugInfo, Names};
use crate::model::{Kind, MemberKind};

/// Structures that are not ready for use when they are zero (xen/include/xen/list.h, spinlock.h, rwlock.h, timer.h,
/// tasklet.h, wait.h): a list's head points to itself, a lock names no CPU, a timer its function and CPU.
const NOT_ZERO: &[&str] =
    &["list_head", "percpu_rwlock", "rwlock", "spinlock", "tasklet", "timer", "waitqueue_head"];
/// Elements of an array and members of structures that are looked at.
const BUDGET: usize = 10_000;
/// Structures and arrays inside of each other.
const MAX_DEPTH: u32 = 32;

/// A part of a variable that does nothing good while it is zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetUp {
    /// What it is: `struct list_head`, `a pointer`.
    pub what: String,
    /// Bytes from the start of the variable.
    pub at: u64,
    /// Its size in bytes.
    pub size: u64,
}

impl DebugInfo {
    /// The parts of a static or global variable that have to be set up: locks, heads of lists, timers and the like,
    /// and pointers. Empty if there are several variables of that name, or none.
    pub fn to_set_up(&self, name: &str) -> Vec<SetUp> {
        let mut found = Vec::new();
        let mut budget = BUDGET;
        if let Some(ty) = self.variable_type(name) {
            self.parts(ty, 0, MAX_DEPTH, &mut budget, &mut found);
        }
        found
    }

    fn parts(&self, ty: u32, at: u64, depth: u32, budget: &mut usize, found: &mut Vec<SetUp>) {
        let mut ty = ty;
        let mut names = Vec::new();
        let this = loop {
            let Some(this) = self.model.types.get(ty as usize) else { return };
            names.push(self.object().text(this.name));
            if !matches!(this.kind, Kind::Typedef | Kind::Qualifier) || names.len() > 64 {
                break this;
            }
            ty = this.target;
        };
        let Some(left) = budget.checked_sub(1).filter(|_| depth > 0) else { return };
        *budget = left;
        let size = self.shapes.size.get(ty as usize).copied().flatten();
        let fits = |name: &str| NOT_ZERO.contains(&name.trim_end_matches("_t"));
        match this.kind {
            Kind::Pointer => {
                found.push(SetUp { what: "a pointer".to_owned(), at, size: size.unwrap_or(8) });
            }
            Kind::Struct | Kind::Union => {
                if let (Some(name), Some(size)) = (names.iter().find(|name| fits(name)), size) {
                    let tag = if name.ends_with("_t") { "" } else { "struct " };
                    found.push(SetUp { what: format!("{tag}{name}"), at, size });
                    return;
                }
                for member in self.model.members_of(ty).iter().filter(|m| m.kind == MemberKind::Field) {
                    let place = at + member.at.max(0).cast_unsigned() / 8;
                    self.parts(member.target, place, depth - 1, budget, found);
                }
            }
            Kind::Array => {
                let (element, target) =
                    (self.shapes.size.get(this.target as usize).copied().flatten(), this.target);
                let (Some(step), Some(whole)) = (element.filter(|step| *step > 0), size) else { return };
                for index in 0..whole / step {
                    let before = found.len();
                    self.parts(target, at + index * step, depth - 1, budget, found);
                    if found.len() == before || *budget == 0 {
                        return;
                    }
                }
            }
            _ => {}
        }
    }
}
