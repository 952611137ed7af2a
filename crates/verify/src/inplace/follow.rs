//! What the hypervisor comes to where a payload changed it, and what is left once the payload is reverted.

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};
use xsplice_report::Place;

use super::InPlace;
use super::image::{Applied, Image, JUMP, Patch, Reverted};
use crate::codes;
use crate::findings::Findings;
use crate::payload::Target;
use crate::verify::{Context, problem};
use crate::xen::ENDBR;

/// The longest instruction in bytes.
const LONGEST: usize = 15;

/// The instruction at an address.
pub(super) fn instruction(image: &Image, address: u64) -> Option<Instruction> {
    let bytes = image.at(address, LONGEST);
    let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
    let instruction = decoder.can_decode().then(|| decoder.decode())?;
    (!instruction.is_invalid()).then_some(instruction)
}

/// Whether the instruction is one that a jump may stand behind: ENDBR64, or what Xen seals it with.
fn is_entry(image: &Image, address: u64) -> bool {
    crate::elf::starts_with_endbr(image.at(address, ENDBR.len()))
}

/// Reads the start of each replaced function as a CPU would, and says where it leads.
pub(super) fn trampolines(applied: &Applied, done: &mut InPlace, findings: &mut Findings) {
    for patch in applied.patches() {
        let found = if patch.new == 0 { nops(applied.image(), patch) } else { jump(applied.image(), patch) };
        match found {
            Ok(()) if patch.new == 0 => done.nops += 1,
            Ok(()) => done.trampolines += 1,
            Err(found) => findings.host(problem(
                codes::TRAMPOLINE,
                format!("{}, replaced, does not lead to its replacement: {found}", patch.name),
                Place::none().section(".livepatch.funcs").symbol(patch.name.clone()),
                "All entries were applied to an image of the hypervisor in their order, and the result was decoded.",
                "Look for another entry that writes to the same place.",
            )),
        }
    }
}

/// ENDBR64 or nothing, then a jump to the replacement that ends inside of the function.
fn jump(image: &Image, patch: &Patch) -> Result<(), String> {
    let behind = if is_entry(image, patch.old) { ENDBR.len() } else { 0 };
    let at = patch.old.wrapping_add(behind as u64);
    let instruction = instruction(image, at).ok_or_else(|| format!("no instruction at {at:#x}"))?;
    if instruction.code() != Code::Jmp_rel32_64 {
        return Err(format!("{instruction} at {at:#x} is not the jump"));
    }
    let target = instruction.near_branch_target();
    if target != patch.new {
        return Err(format!("the jump at {at:#x} goes to {target:#x} instead of {:#x}", patch.new));
    }
    if behind + JUMP > patch.old_size as usize {
        return Err(format!("the jump ends behind the {} bytes of the function", patch.old_size));
    }
    Ok(())
}

/// As many NOPs as were asked for.
fn nops(image: &Image, patch: &Patch) -> Result<(), String> {
    let behind = if is_entry(image, patch.old) { ENDBR.len() as u64 } else { 0 };
    let end = patch.old.wrapping_add(u64::from(patch.new_size));
    let mut at = patch.old.wrapping_add(behind);
    while at < end {
        match instruction(image, at).filter(|found| found.mnemonic() == Mnemonic::Nop) {
            Some(found) => at = found.next_ip(),
            None => return Err(format!("what is at {at:#x} is no NOP")),
        }
    }
    Ok(())
}

/// Whether the payload left no trace.
pub(super) fn identical(reverted: &Reverted, before: &Image, done: &mut InPlace, findings: &mut Findings) {
    match reverted.differs_from(before) {
        None => done.reverted = true,
        Some(address) => findings.host(problem(
            codes::REVERT_DIFFERS,
            format!("after a revert the hypervisor is not what it was: {address:#x} differs"),
            Place::none().section(".livepatch.funcs"),
            "All entries were applied to an image of the hypervisor and reverted in their order, as Xen does.",
            "Look for two entries that write to the same place.",
        )),
    }
}

/// Decodes each alternative as it may stand in the code after upload: the original, and what a CPU with the feature
/// gets. Where altcalls lead is read from the pointer that they go through.
pub(super) fn alternatives(
    context: &Context<'_>,
    image: &Image,
    done: &mut InPlace,
    findings: &mut Findings,
) {
    for alternative in &context.content.alternatives {
        let (Some(original), Some(replacement)) =
            (context.low.address(alternative.original), context.low.address(alternative.replacement))
        else {
            continue;
        };
        if alternative.is_altcall(context.payload) {
            altcall(context, image, original, alternative.offset, done, findings);
            continue;
        }
        let room = usize::from(alternative.original_len) + usize::from(alternative.pad_len);
        let forms = [
            image.exactly(original, room).map(<[u8]>::to_vec),
            replaced(image, original, replacement, usize::from(alternative.replacement_len), room),
        ];
        let wrong = forms.iter().find_map(|form| match form {
            Some(code) => undecodable(code, original),
            None => Some(original),
        });
        match wrong {
            None => done.alternatives += 1,
            Some(at) => findings.host(problem(
                codes::ALTERNATIVE_IN_PLACE,
                format!(
                    "an alternative at {original:#x} cannot be decoded in place: nothing sensible at {at:#x}"
                ),
                Place::none().section(".altinstructions").offset(alternative.offset),
                "On some CPUs the code would not be what it is meant to be.",
                "Look at the lengths of the entry.",
            )),
        }
    }
    for site in &context.content.call_sites {
        if let Some(address) = context.low.address(site.site) {
            altcall(context, image, address, site.offset, done, findings);
        }
    }
}

/// The replacement as Xen copies it: the displacement of a call or jump at its start follows the move, and what is left
/// of the room is NOPs (`_apply_alternatives`, xen/arch/x86/alternative.c).
fn replaced(image: &Image, original: u64, from: u64, len: usize, room: usize) -> Option<Vec<u8>> {
    let mut code = image.exactly(from, len)?.to_vec();
    if let [0xe8 | 0xe9, field @ ..] = &mut code[..]
        && let Ok(bytes) = <[u8; 4]>::try_from(&field[..])
    {
        let moved = i64::from(i32::from_le_bytes(bytes)) + from.wrapping_sub(original).cast_signed();
        field.copy_from_slice(&i32::try_from(moved).ok()?.to_le_bytes());
    }
    (code.len() <= room).then(|| {
        code.resize(room, 0x90);
        code
    })
}

/// Where the instructions of some code do not end where the code ends.
fn undecodable(code: &[u8], address: u64) -> Option<u64> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    while decoder.can_decode() {
        let at = decoder.ip();
        if decoder.decode().is_invalid() {
            return Some(at);
        }
    }
    None
}

/// An indirect call that Xen makes direct at upload.
fn altcall(
    context: &Context<'_>,
    image: &Image,
    site: u64,
    offset: u64,
    done: &mut InPlace,
    findings: &mut Findings,
) {
    let indirect = instruction(image, site).filter(|found| {
        let flow = matches!(found.flow_control(), FlowControl::IndirectCall | FlowControl::IndirectBranch);
        flow && found.is_ip_rel_memory_operand()
    });
    let Some(call) = indirect else {
        findings.host(problem(
            codes::ALTERNATIVE_IN_PLACE,
            format!("an altcall at {site:#x} is no indirect call through a pointer"),
            Place::none().section(".altinstructions").offset(offset),
            "Xen would write a direct call to nowhere over it.",
            "Look at where the entry points.",
        ));
        return;
    };
    let pointer = image.exactly(call.ip_rel_memory_address(), 8).and_then(|raw| crate::elf::u64_at(raw, 0));
    let target = Target::Literal(pointer.unwrap_or_default());
    match context.low.address(target).filter(|target| instruction(image, *target).is_some()) {
        Some(_) => done.altcalls += 1,
        None => done.altcalls_set_at_boot += 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traits::EndbrRoom;

    const AT: u64 = 0xffff_82d0_4020_0000;

    /// Applies entries to an image whose functions start with ENDBR64 at 0 and with PUSH at 32.
    fn judged(patches: Vec<Patch>) -> (InPlace, Vec<&'static str>) {
        let mut code = vec![0xc3u8; 128];
        code[..4].copy_from_slice(&ENDBR);
        code[32] = 0x55;
        let image = Image::from_bytes(AT, &code);
        let applied = image.clone().uploaded().apply(patches, EndbrRoom::EndbrOrPoison).expect("applied");
        let (mut done, mut findings) = (InPlace::default(), Findings::default());
        trampolines(&applied, &mut done, &mut findings);
        identical(&applied.revert(), &image, &mut done, &mut findings);
        (done, findings.0.iter().map(|finding| finding.diagnostic.code.name).collect())
    }

    fn patch(old: u64, new: u64, size: u32) -> Patch {
        Patch { name: "f".into(), old: AT + old, old_size: size, new, new_size: size }
    }

    #[test]
    fn jumps_and_nops_are_followed_and_reverted() {
        let far = AT + 0x1000;
        let (done, codes) = judged(vec![patch(0, far, 9), patch(32, far + 64, 5), patch(64, 0, 8)]);
        assert_eq!(codes, Vec::<&str>::new());
        assert_eq!((done.trampolines, done.nops, done.reverted), (2, 1, true));
    }

    #[test]
    fn a_place_that_is_written_twice_leads_elsewhere_and_does_not_come_back() {
        let (done, codes) = judged(vec![patch(32, AT + 0x1000, 16), patch(32, AT + 0x2000, 16)]);
        assert_eq!(codes, [codes::TRAMPOLINE.name, codes::REVERT_DIFFERS.name]);
        assert_eq!((done.trampolines, done.reverted), (1, false));
        // The second begins inside the jump of the first.
        let (_, codes) = judged(vec![patch(32, AT + 0x1000, 16), patch(34, AT + 0x2000, 16)]);
        assert_eq!(codes, [codes::TRAMPOLINE.name, codes::REVERT_DIFFERS.name]);
    }

    #[test]
    fn a_jump_may_not_end_behind_its_function() {
        let (_, codes) = judged(vec![patch(0, AT + 0x1000, 8)]);
        assert_eq!(codes, [codes::TRAMPOLINE.name]);
    }

    #[test]
    fn a_replacement_is_decoded_as_it_is_copied() {
        // call to AT + 64 from AT + 16, copied to AT + 32.
        let mut code = vec![0xccu8; 128];
        code[16..21].copy_from_slice(&[0xe8, 43, 0, 0, 0]);
        let image = Image::from_bytes(AT, &code);
        let copied = replaced(&image, AT + 32, AT + 16, 5, 7).expect("copied");
        assert_eq!(copied, [0xe8, 27, 0, 0, 0, 0x90, 0x90]);
        assert_eq!(replaced(&image, AT + 32, AT + 16, 5, 4), None);
        assert_eq!(undecodable(&copied, AT), None);
        assert_eq!(undecodable(&copied[..3], AT), Some(AT));
    }
}
