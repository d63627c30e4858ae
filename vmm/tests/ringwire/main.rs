//! The `ringwire` command, run as users run it. Guests here are a few hand-made instructions in an
//! ELF file with a PVH entry, or the bare ones of `tests/guests`: they run under any KVM, also one that
//! can't boot Linux.

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod bare;
#[cfg(test)]
mod check;
#[cfg(test)]
mod confine;
#[cfg(test)]
mod console;
#[cfg(test)]
mod dying;
#[cfg(test)]
mod guest;
#[cfg(test)]
mod hostile;
mod interfaces;
#[cfg(test)]
mod jail;
#[cfg(test)]
mod life;
#[cfg(test)]
mod maps;
#[cfg(test)]
mod measure;
#[cfg(test)]
mod network;
#[cfg(test)]
mod open;
#[cfg(test)]
mod pci;
#[cfg(test)]
mod placement;
#[cfg(test)]
mod process;
#[cfg(test)]
mod readers;
mod refusing;
#[cfg(test)]
mod wire;
