//! The x86_64 machine: its layout, how a kernel finds it, and the state its first CPU starts in.

pub mod acpi;
pub mod cpuid;
pub mod layout;
pub mod mp_table;
pub mod paging;
pub mod registers;
