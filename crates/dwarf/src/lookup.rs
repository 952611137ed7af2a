//! Functions and variables by address and by name.

use crate::info::{Names, Object};
use crate::model::Entity;

/// An index of a list of entities: objects have thousands of them, and each symbol of a report asks.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// Addresses with positions in the list, sorted.
    addresses: Vec<(u64, u32)>,
    /// Positions in the list, sorted by name and position.
    names: Vec<u32>,
}

impl Lookup {
    pub(crate) fn of(object: Object<'_>, entities: &[Entity]) -> Lookup {
        // Positions fit: every entity takes bytes of a section that 32 bits address.
        let all = || entities.iter().enumerate().map(|(index, entity)| (index as u32, entity));
        let mut addresses: Vec<(u64, u32)> =
            all().filter_map(|(index, entity)| Some((entity.address?, index))).collect();
        addresses.sort_unstable();
        let mut names: Vec<u32> = all().map(|(index, _)| index).collect();
        names.sort_by_key(|&index| object.bytes(entities[index as usize].name));
        Lookup { addresses, names }
    }

    /// The first entity at an address.
    pub(crate) fn at<'e>(&self, entities: &'e [Entity], address: u64) -> Option<&'e Entity> {
        let first = self.addresses.partition_point(|&(other, _)| other < address);
        let &(found, index) = self.addresses.get(first)?;
        (found == address).then(|| &entities[index as usize])
    }

    /// The entities of a name, in the order of the list.
    pub(crate) fn named<'e>(
        &self,
        object: Object<'_>,
        entities: &'e [Entity],
        name: &str,
    ) -> impl Iterator<Item = &'e Entity> {
        let name_of = |&index: &u32| object.bytes(entities[index as usize].name);
        let first = self.names.partition_point(|index| name_of(index) < name.as_bytes());
        let rest = &self.names[first..];
        let count = rest.partition_point(|index| name_of(index) == name.as_bytes());
        rest[..count].iter().map(|&index| &entities[index as usize])
    }
}
