//! From tables to seccomp filters (seccomp(2), Documentation/userspace-api/seccomp_filter.rst).

use std::collections::BTreeMap;

use rustix::process::getpid;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Op,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::{
    allowed::{self, Call, Only},
    kind::{AttendantKind, ThreadKind},
};

/// Traps whatever a thread of that kind has no use for: SIGSYS, which [`trap`](super::trap) handles.
pub(super) fn of(kind: ThreadKind) -> Result<BpfProgram, BackendError> {
    let absent = match kind {
        ThreadKind::Spawner => allowed::ABSENT,
        _ => &[],
    };
    // What the filters of refusals answer passes here.
    let calls = [&allowed::all(kind), allowed::REFUSED, absent].concat();
    compile(&calls, SeccompAction::Allow, SeccompAction::Trap)
}

/// Ends a process that only waits at whatever it has no use for.
pub(super) fn of_attendant(kind: AttendantKind) -> Result<BpfProgram, BackendError> {
    let calls = allowed::of_attendant(kind);
    compile(&calls, SeccompAction::Allow, SeccompAction::KillProcess)
}

/// Answers what libraries try by themselves with EACCES. Of several filters the strictest answer counts, and a
/// trap is stricter: so what is here is in the other one as well.
pub(super) fn of_refusals() -> Result<BpfProgram, BackendError> {
    answer(allowed::REFUSED, libc::EACCES)
}

/// Answers what the spawner shall do without as a kernel that does not have it.
pub(super) fn of_absences() -> Result<BpfProgram, BackendError> {
    answer(allowed::ABSENT, libc::ENOSYS)
}

fn answer(calls: &[Call], error: i32) -> Result<BpfProgram, BackendError> {
    let error = SeccompAction::Errno(error.unsigned_abs());
    compile(calls, error, SeccompAction::Allow)
}

fn compile(
    calls: &[Call],
    matched: SeccompAction,
    other: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let mut rules = BTreeMap::new();
    for call in calls {
        let alternatives = of_only(call.only)?.into_iter();
        let alternatives: Result<_, _> = alternatives.map(SeccompRule::new).collect();
        rules.insert(call.number, alternatives?);
    }
    SeccompFilter::new(rules, other, matched, TargetArch::x86_64)?.try_into()
}

/// One of these has to match, with all of its conditions; none: always.
fn of_only(only: Only) -> Result<Vec<Vec<SeccompCondition>>, BackendError> {
    let is =
        |argument, length, op, value| Ok(vec![SeccompCondition::new(argument, length, op, value)?]);
    match only {
        Only::Any => Ok(Vec::new()),
        Only::OneOf(argument, values) => values
            .iter()
            .map(|(value, _)| is(argument, Length::Dword, Op::Eq, *value))
            .collect(),
        Only::Without(argument, (bits, _)) => {
            Ok(vec![is(argument, Length::Dword, Op::MaskedEq(bits), 0)?])
        }
        Only::Null(argument, _) => Ok(vec![is(argument, Length::Qword, Op::Eq, 0)?]),
        Only::OwnPid(argument) => {
            let pid = u64::from(getpid().as_raw_nonzero().get().unsigned_abs());
            Ok(vec![is(argument, Length::Dword, Op::Eq, pid)?])
        }
        Only::Both(one, other) => {
            let (one, other) = (of_only(*one)?, of_only(*other)?);
            let both = |a: &Vec<_>| {
                let with = |b: &Vec<_>| [a.as_slice(), b.as_slice()].concat();
                other.iter().map(with).collect::<Vec<_>>()
            };
            Ok(one.iter().flat_map(both).collect())
        }
    }
}
