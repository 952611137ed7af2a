//! Relocatable objects and the shipped hypervisor's symbols as typed models.
