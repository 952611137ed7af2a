//! The payload in an image of the hypervisor: relocated, applied, followed, compared with the objects that it was made
//! of, and reverted.

mod against;
mod code;
mod effort;
mod follow;
mod hooks;
mod image;
mod names;
mod objects;
mod special;

use serde::Serialize;

use crate::findings::Findings;
use crate::layout::Placed;
use crate::payload::{Content, Func};
use crate::verify::Context;

pub use objects::PatchedObject;

use image::{Image, Obstacle, Patch};

/// What was done with the payload in an image of the hypervisor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InPlace {
    /// Relocations that were applied.
    pub relocations: usize,
    /// Jumps from the hypervisor to a replacement that were followed.
    pub trampolines: usize,
    /// Functions that were overwritten with NOPs.
    pub nops: usize,
    /// Alternatives that were decoded in both forms.
    pub alternatives: usize,
    /// Altcalls whose target is in the image.
    pub altcalls: usize,
    /// Altcalls through a pointer that is set at boot: their target is not known.
    pub altcalls_set_at_boot: usize,
    /// Whether the image was identical after the revert.
    pub reverted: bool,
    /// What was compared with the patched objects; `None` without objects.
    pub objects: Option<AgainstObjects>,
    /// Why the payload was not put into an image, where it was not.
    pub obstacle: Option<String>,
}

/// What was compared with the objects of the patched build.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct AgainstObjects {
    /// Functions of the payload that were decoded in place.
    pub functions: usize,
    /// Calls, jumps and other references of code and constants that lead where the objects say.
    pub references: usize,
    /// Pieces of data and texts that hold what the objects say.
    pub constants: usize,
    /// Hooks that are those of the objects.
    pub hooks: usize,
}

/// Does all of it. Only for a payload that breaks no rule: others have no meaning in memory.
pub(crate) fn check(context: &Context<'_>, findings: &mut Findings) -> InPlace {
    let mut done = InPlace::default();
    if let Err(obstacle) = run(context, findings, &mut done) {
        done.obstacle = Some(obstacle);
    }
    done
}

fn run(context: &Context<'_>, findings: &mut Findings, done: &mut InPlace) -> Result<(), Obstacle> {
    let xen = context.xen.as_ref().ok_or("there is no symbol file")?;
    let room = context.traits.endbr;
    let mut image = Image::of(xen)?;
    for below in &context.below {
        let uploaded = image.upload(&below.payload, &below.placed)?;
        let patches = patches(context, &below.content, &below.placed)?;
        image = uploaded.apply(patches, room)?.keep();
    }
    let before = image.clone();
    let uploaded = image.upload(context.payload, &context.low)?;
    done.relocations = uploaded.relocations;
    let patches = patches(context, &context.content, &context.low)?;
    follow::alternatives(context, uploaded.image(), done, findings);
    let applied = uploaded.apply(patches, room)?;
    follow::trampolines(&applied, done, findings);
    if let Some(objects) = context.input.objects {
        done.objects = Some(against::check(context, objects, &applied, findings));
    }
    follow::identical(&applied.revert(), &before, done, findings);
    Ok(())
}

/// The entries of a payload with their addresses.
fn patches(context: &Context<'_>, content: &Content, placed: &Placed) -> Result<Vec<Patch>, Obstacle> {
    let patch = |func: &Func| {
        let old = match placed.address(func.old) {
            Some(0) => context.find(&func.name).address(),
            other => other,
        };
        let missing = || format!("{} has no address", func.name);
        Ok(Patch {
            name: func.name.clone(),
            old: old.ok_or_else(missing)?,
            old_size: func.old_size,
            new: placed.address(func.new).ok_or_else(missing)?,
            new_size: func.new_size,
        })
    };
    content.funcs.iter().map(patch).collect()
}
