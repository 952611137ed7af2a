//! The configuration that a hypervisor says it was built with, beside that of an original.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;
use xsplice_objects::{Home, Hypervisor, Object};

/// What holds a configuration: the text of `.config`, compressed by gzip (xen/common/config_data.S, from Xen 4.13 on).
const DATA: &str = "xen_config_data";
/// Of the header that gzip writes: the time.
const TIME: std::ops::Range<usize> = 4..8;
/// No configuration is as long as this, in bytes.
const LONGEST: u64 = 1 << 20;

/// How two configurations compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Configuration {
    /// They are the same.
    Same,
    /// They are not. Sorted by name are the options on which they differ; none where one of them cannot be unpacked, or
    /// where they have other comments.
    Other(Vec<OtherOption>),
}

/// An option on which they differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherOption {
    /// Its name, with `CONFIG_`.
    pub name: String,
    /// Its value in the original; `n` where it is off or not there.
    pub ours: String,
    /// Its value in the shipped hypervisor.
    pub shipped: String,
}

/// Whether the hypervisor was built with the configuration of an original, whose object `xen/common/config_data.o` holds
/// it. `None` where one of them does not say.
pub fn configuration(object: &Object, hypervisor: &Hypervisor) -> Option<Configuration> {
    let ours = object.symbols.iter().find(|symbol| symbol.name == DATA)?;
    let Home::Section(section) = ours.home else { return None };
    let shipped = hypervisor.unique(DATA)?;
    if ours.size == 0 || shipped.size == 0 {
        return None;
    }
    let mut theirs = hypervisor.bytes(shipped.address, usize::try_from(shipped.size).ok()?)?.to_vec();
    let mut own = object.section(section).bytes(ours.value, ours.value.checked_add(ours.size)?).into_owned();
    for bytes in [&mut theirs, &mut own] {
        bytes.get_mut(TIME)?.fill(0);
    }
    if own == theirs {
        return Some(Configuration::Same);
    }
    let both = options(&own).zip(options(&theirs));
    Some(Configuration::Other(both.map(|(ours, shipped)| differing(&ours, &shipped)).unwrap_or_default()))
}

/// The options that are not off, with their values.
type Options = BTreeMap<String, String>;

fn options(packed: &[u8]) -> Option<Options> {
    let mut text = String::new();
    GzDecoder::new(packed).take(LONGEST).read_to_string(&mut text).ok()?;
    let set = text.lines().filter(|line| line.starts_with("CONFIG_")).filter_map(|line| line.split_once('='));
    Some(set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn differing(ours: &Options, shipped: &Options) -> Vec<OtherOption> {
    let mut names: Vec<&String> = ours.keys().chain(shipped.keys()).collect();
    names.sort();
    names.dedup();
    let value = |options: &Options, name| options.get(name).map_or("n", String::as_str).to_owned();
    let all = names.into_iter().map(|name| OtherOption {
        name: name.clone(),
        ours: value(ours, name),
        shipped: value(shipped, name),
    });
    all.filter(|option| option.ours != option.shipped).collect()
}
