//! What CPUID tells a vCPU: what KVM supports on this host, with the machine's own topology, one
//! socket of as many single-threaded cores as there are vCPUs. Intel and AMD leaves both.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

/// Which vCPU of how many, and what the host's KVM adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// This vCPU, which is also its APIC ID.
    pub index: u8,
    /// Number of vCPUs, at least 1.
    pub cpus: u8,
    /// Whether its APIC's timer has the TSC deadline mode. KVM_CAP_TSC_DEADLINE_TIMER tells whether it can:
    /// KVM_GET_SUPPORTED_CPUID may not say so.
    pub tsc_deadline: bool,
}

impl Topology {
    /// How many bits of an APIC ID number the cores.
    fn core_bits(self) -> u32 {
        u32::from(self.cpus).next_power_of_two().trailing_zeros()
    }
}

/// Replaces the bits `low..low + width` of `register` by `value`.
fn set_bits(register: &mut u32, low: u32, width: u32, value: u32) {
    let mask = u32::MAX >> (32 - width);
    *register = *register & !(mask << low) | (value & mask) << low;
}

fn set_flag(register: &mut u32, bit: u32, on: bool) {
    set_bits(register, bit, 1, u32::from(on));
}

/// Fits the host's `supported` leaves to one vCPU.
pub fn adapt(supported: &CpuId, topology: Topology) -> CpuId {
    let mut cpuid = supported.clone();
    for entry in cpuid.as_mut_slice() {
        adapt_entry(entry, topology);
    }
    cpuid
}

/// Adds the leaf by which hypervisors tell frequencies (VMware's "timing information", which KVM does not have by
/// itself): kernels of other systems than Linux look there before they measure. `tsc_khz`: how fast the TSC
/// counts, in kHz, or 0 if KVM does not say.
pub fn tell_frequencies(cpuid: &mut CpuId, tsc_khz: u32) {
    const SIGNATURE: u32 = 0x4000_0000;
    const TIMING: u32 = 0x4000_0010;
    /// KVM's local APICs count nanoseconds.
    const APIC_KHZ: u32 = 1_000_000;
    let mut leaves = cpuid.as_mut_slice().iter_mut();
    let signature = leaves.find(|leaf| leaf.function == SIGNATURE && leaf.ebx == KVM_SIGNATURE);
    let Some(signature) = signature.filter(|_| tsc_khz != 0) else {
        return;
    };
    let last = signature.eax;
    if last >= TIMING {
        return;
    }
    signature.eax = TIMING;
    let timing = kvm_cpuid_entry2 {
        function: TIMING,
        eax: tsc_khz,
        ebx: APIC_KHZ,
        ..Default::default()
    };
    if cpuid.push(timing).is_err() {
        // Full: guests measure.
        let mut leaves = cpuid.as_mut_slice().iter_mut();
        if let Some(signature) = leaves.find(|leaf| leaf.function == SIGNATURE) {
            signature.eax = last;
        }
    }
}

/// "KVMK", the first of three words.
const KVM_SIGNATURE: u32 = u32::from_le_bytes(*b"KVMK");

fn adapt_entry(entry: &mut kvm_cpuid_entry2, topology: Topology) {
    let (index, cpus) = (u32::from(topology.index), u32::from(topology.cpus));
    match entry.function {
        0x1 => features(entry, topology),
        // Deterministic cache parameters of Intel; 0x8000001d has the same fields on AMD.
        0x4 | 0x8000_001d => caches(entry, cpus),
        // Extended topology: thread level, then core level.
        0xb | 0x1f => extended_topology(entry, topology),
        // Legacy flag of AMD: this package has several cores, not threads.
        0x8000_0001 => set_flag(&mut entry.ecx, 1, cpus > 1),
        // AMD: number of cores - 1, and the APIC ID bits that number them.
        0x8000_0008 => {
            set_bits(&mut entry.ecx, 0, 8, cpus - 1);
            set_bits(&mut entry.ecx, 12, 4, topology.core_bits());
        }
        // AMD: APIC ID; core ID with threads a core - 1 (0); one node.
        0x8000_001e => {
            entry.eax = index;
            entry.ebx = index;
            entry.ecx = 0;
        }
        _ => {}
    }
}

/// Leaf 1: APIC ID, logical processors in the package, hypervisor, TSC deadline timer.
fn features(entry: &mut kvm_cpuid_entry2, topology: Topology) {
    set_bits(&mut entry.ebx, 24, 8, u32::from(topology.index));
    set_bits(&mut entry.ebx, 16, 8, 1 << topology.core_bits().min(7));
    set_flag(&mut entry.edx, 28, topology.cpus > 1);
    set_flag(&mut entry.ecx, 31, true);
    set_flag(&mut entry.ecx, 24, topology.tsc_deadline);
}

/// How many cores share a cache: all of them the last level, one the others.
fn caches(entry: &mut kvm_cpuid_entry2, cpus: u32) {
    if entry.eax & 0x1f == 0 {
        return; // no such cache
    }
    let level = entry.eax >> 5 & 7;
    let sharing = if level >= 3 { cpus - 1 } else { 0 };
    set_bits(&mut entry.eax, 14, 12, sharing);
    if entry.function == 0x4 {
        let cores = cpus.next_power_of_two() - 1;
        set_bits(&mut entry.eax, 26, 6, cores.min(0x3f));
    }
}

fn extended_topology(entry: &mut kvm_cpuid_entry2, topology: Topology) {
    const THREAD: u32 = 1;
    const CORE: u32 = 2;
    let (shift, count, kind) = match entry.index {
        0 => (0, 1, THREAD),
        1 => (topology.core_bits(), u32::from(topology.cpus), CORE),
        _ => (0, 0, 0),
    };
    entry.eax = shift;
    entry.ebx = count;
    entry.ecx = entry.index | kind << 8;
    entry.edx = u32::from(topology.index);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            eax: 0xffff_ffff,
            ebx: 0xffff_ffff,
            ecx: 0xffff_ffff,
            edx: 0xffff_ffff,
            ..Default::default()
        }
    }

    fn adapted(function: u32, index: u32, topology: Topology) -> kvm_cpuid_entry2 {
        let host = CpuId::from_entries(&[entry(function, index)]).unwrap();
        adapt(&host, topology).as_slice()[0]
    }

    const THIRD_OF_SIX: Topology = Topology {
        index: 2,
        cpus: 6,
        tsc_deadline: true,
    };
    const ONLY: Topology = Topology {
        index: 0,
        cpus: 1,
        tsc_deadline: false,
    };

    #[test]
    fn leaf_1_numbers_the_vcpu() {
        let leaf = adapted(1, 0, THIRD_OF_SIX);
        assert_eq!(leaf.ebx >> 24, 2);
        assert_eq!(leaf.ebx >> 16 & 0xff, 8);
        assert_eq!(leaf.edx >> 28 & 1, 1);
        let alone = adapted(1, 0, ONLY);
        assert_eq!((alone.ebx >> 24, alone.ebx >> 16 & 0xff), (0, 1));
        assert_eq!(alone.edx >> 28 & 1, 0);
        assert_eq!(
            alone.ecx >> 24 & 1,
            0,
            "no deadline timer, whatever KVM says"
        );
    }

    #[test]
    fn the_deadline_timer_follows_the_capability() {
        let host = |tsc_deadline| {
            let leaf = CpuId::from_entries(&[kvm_cpuid_entry2 {
                function: 1,
                ..Default::default()
            }]);
            let topology = Topology {
                tsc_deadline,
                ..ONLY
            };
            adapt(&leaf.unwrap(), topology).as_slice()[0].ecx
        };
        assert_eq!(host(true) >> 24 & 1, 1);
        assert_eq!(host(false) >> 24 & 1, 0);
        assert_eq!(host(false) >> 31, 1, "hypervisor");
    }

    #[test]
    fn extended_topology_has_a_thread_and_a_core_level() {
        let fields = |index| {
            let leaf = adapted(0xb, index, THIRD_OF_SIX);
            (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx)
        };
        assert_eq!(fields(0), (0, 1, 0x100, 2));
        assert_eq!(fields(1), (3, 6, 0x201, 2));
        assert_eq!(fields(2), (0, 0, 2, 2));
    }

    #[test]
    fn amd_leaves_agree() {
        let sizes = adapted(0x8000_0008, 0, THIRD_OF_SIX);
        assert_eq!((sizes.ecx & 0xff, sizes.ecx >> 12 & 0xf), (5, 3));
        let ids = adapted(0x8000_001e, 0, THIRD_OF_SIX);
        assert_eq!((ids.eax, ids.ebx, ids.ecx), (2, 2, 0));
        assert_eq!(adapted(0x8000_0001, 0, ONLY).ecx >> 1 & 1, 0);
    }

    #[test]
    fn the_frequencies_are_told_by_the_hypervisors_leaf() {
        let signature = |ebx| kvm_cpuid_entry2 {
            function: 0x4000_0000,
            eax: 0x4000_0001,
            ebx,
            ..Default::default()
        };
        let told = |ebx, khz| {
            let mut cpuid = CpuId::from_entries(&[signature(ebx)]).unwrap();
            tell_frequencies(&mut cpuid, khz);
            let leaves = cpuid.as_slice();
            let fields = |leaf: &kvm_cpuid_entry2| (leaf.function, leaf.eax, leaf.ebx);
            (leaves[0].eax, leaves.get(1).map(fields))
        };
        let timing = (0x4000_0010, 2_500_000, 1_000_000);
        assert_eq!(told(KVM_SIGNATURE, 2_500_000), (0x4000_0010, Some(timing)));
        assert_eq!(
            told(KVM_SIGNATURE, 0),
            (0x4000_0001, None),
            "KVM does not say"
        );
        assert_eq!(
            told(0, 2_500_000),
            (0x4000_0001, None),
            "another hypervisor"
        );
    }

    #[test]
    fn only_the_last_level_cache_is_shared() {
        let cache = |level: u32| {
            let mut host = entry(4, level);
            host.eax = level << 5 | 1;
            let host = CpuId::from_entries(&[host]).unwrap();
            adapt(&host, THIRD_OF_SIX).as_slice()[0].eax
        };
        assert_eq!(cache(1) >> 14 & 0xfff, 0);
        assert_eq!(cache(3) >> 14 & 0xfff, 5);
        assert_eq!(cache(1) >> 26, 7);
    }
}
