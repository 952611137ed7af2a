//! Rules about the file as a whole: its name, its size and the ELF file header.

use goblin::elf::header::{self, header64::Header};
use xsplice_report::{Code, Place};

use crate::findings::{Errno, Findings, Side, Step};
use crate::verify::{VerifyInput, problem};
use crate::{codes, elf};

/// Bytes of the largest file: LIVEPATCH_MAX_SIZE (xen/include/xen/livepatch.h).
pub(crate) const LARGEST: u64 = 2 << 20;
/// Characters of the longest name: XEN_LIVEPATCH_NAME_SIZE without its NUL (xen/include/public/sysctl.h).
const LONGEST_NAME: usize = 127;
/// The loader's bound on the number of sections (`livepatch_header_check`).
const MOST_SECTIONS: u16 = 1024;

/// Name and size: `get_name` and `verify_payload` of xen/common/livepatch.c, 4.13 to 4.22.
pub(crate) fn check_upload(input: &VerifyInput<'_>, findings: &mut Findings) {
    let name = input.name;
    let too_long = name.len() > LONGEST_NAME;
    if name.is_empty() || too_long || name.contains(['\0', '/']) {
        // The tools cannot say the others; the hypervisor would take them.
        let side = if too_long { Side::Loader(Step::Request, Errno::Einval) } else { Side::Host };
        let diagnostic = problem(
            codes::NAME_LENGTH,
            format!("Xen takes no payload of the name {name:?}, which has {} bytes", name.len()),
            Place::none(),
            "A payload's name has 1 to 127 bytes and comes from its file's name.",
            "Choose another name with --name.",
        );
        findings.push(side, diagnostic);
    }
    let size = input.payload.len() as u64;
    if size == 0 || size > LARGEST {
        let diagnostic = problem(
            codes::FILE_SIZE,
            format!("the payload has {size} bytes"),
            Place::none(),
            "Xen takes files of 1 byte to 2 MiB; debug sections count.",
            "Leave debug sections out, or split the change into several payloads.",
        );
        findings.loader(Step::Request, Errno::Einval, diagnostic);
    }
    if let Some(number) = input.below_names.iter().position(|other| *other == name) {
        let diagnostic = problem(
            codes::NAME_LENGTH,
            format!("payload {} of those to stack on has the name {name:?} too", number + 1),
            Place::none(),
            "Xen knows payloads by their names and refuses a second one of a name.",
            "Rename one of the files.",
        );
        findings.loader(Step::Request, Errno::Eexist, diagnostic);
    }
}

/// The file header: `livepatch_header_check` of xen/common/livepatch_elf.c and `arch_livepatch_verify_elf`
/// of xen/arch/x86/livepatch.c, 4.13 to 4.22.
pub(crate) fn check(bytes: &[u8], findings: &mut Findings) {
    let rebuild = "Build the payload again; this file is damaged or made for something else.";
    let Some(ident) = bytes.get(..elf::HEADER_SIZE as usize).filter(|raw| raw.starts_with(b"\x7fELF")) else {
        if !bytes.is_empty() {
            let diagnostic = problem(
                codes::ELF_IDENT,
                "the file is not an ELF file",
                Place::none(),
                "Xen looks for the ELF magic and a file header of 64 bytes first.",
                rebuild,
            );
            findings.loader(Step::Header, Errno::Einval, diagnostic);
        }
        return;
    };
    let mut say = |errno: Errno, code: Code, what: String, why: &str| {
        findings.loader(Step::Header, errno, problem(code, what, Place::none(), why, rebuild));
    };
    let byte = |at: usize| ident[at];
    if byte(header::EI_CLASS) != header::ELFCLASS64 || byte(header::EI_DATA) != header::ELFDATA2LSB {
        say(
            Errno::Eopnotsupp,
            codes::ELF_IDENT,
            format!(
                "the ELF class is {} and the byte order {}",
                byte(header::EI_CLASS),
                byte(header::EI_DATA)
            ),
            "Xen takes 64-bit little endian files only.",
        );
        return;
    }
    let Ok(raw) = Header::parse(bytes) else { return };
    if byte(header::EI_VERSION) != 1 || raw.e_version != 1 {
        say(
            Errno::Eopnotsupp,
            codes::ELF_IDENT,
            format!("the ELF versions are {} and {}", byte(header::EI_VERSION), raw.e_version),
            "Xen takes version 1 only.",
        );
    }
    if byte(header::EI_ABIVERSION) != 0 || !matches!(byte(header::EI_OSABI), 0 | 9) {
        say(
            Errno::Eopnotsupp,
            codes::ELF_IDENT,
            format!("the ELF ABI is {}, version {}", byte(header::EI_OSABI), byte(header::EI_ABIVERSION)),
            "Xen takes ABI 0 (none) or 9 (FreeBSD), version 0. GNU extensions such as indirect functions set another.",
        );
    }
    if raw.e_type != header::ET_REL || raw.e_machine != header::EM_X86_64 || raw.e_phnum != 0 {
        say(
            Errno::Eopnotsupp,
            codes::ELF_KIND,
            format!(
                "the ELF type is {}, the machine {}, and there are {} program headers",
                raw.e_type, raw.e_machine, raw.e_phnum
            ),
            "Xen takes relocatable files (type 1) for x86-64 (machine 62) without program headers.",
        );
    }
    section_table(&raw, bytes.len() as u64, &mut say);
}

/// Says what is wrong with the section table, with the error that the loader answers.
type Say<'s> = dyn FnMut(Errno, Code, String, &str) + 's;

fn section_table(raw: &Header, size: u64, say: &mut Say<'_>) {
    // In the loader's own order: the first one decides about its error.
    let names_outside = |say: &mut Say<'_>| {
        say(
            Errno::Einval,
            codes::ELF_SECTION_TABLE,
            format!("the names of the {} sections are said to be in section {}", raw.e_shnum, raw.e_shstrndx),
            "That is not a section of the file.",
        );
    };
    if raw.e_shstrndx == 0 {
        names_outside(say);
    }
    if raw.e_shnum >= MOST_SECTIONS {
        say(
            Errno::Eopnotsupp,
            codes::ELF_SECTION_TABLE,
            format!("there are {} sections", raw.e_shnum),
            "Xen takes fewer than 1024.",
        );
    }
    if raw.e_shstrndx != 0 && raw.e_shstrndx >= raw.e_shnum {
        names_outside(say);
    }
    let stride = u64::from(raw.e_shentsize);
    let fits = raw.e_shoff < size
        && stride >= elf::SECTION_HEADER_SIZE
        && (size - raw.e_shoff) / stride >= u64::from(raw.e_shnum);
    if !fits {
        say(
            Errno::Einval,
            codes::ELF_SECTION_TABLE,
            format!(
                "the section table ({} entries of {stride} bytes at offset {:#x}) is not in the file of {size} bytes",
                raw.e_shnum, raw.e_shoff
            ),
            "Entries have 64 bytes or more, and all of them must be inside the file.",
        );
    }
}
