//! From tables to seccomp filters (seccomp(2), Documentation/userspace-api/seccomp_filter.rst).

use std::collections::BTreeMap;

use rustix::process::getpid;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Op,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::{
    allowed::{self, Call, Only},
    kind::ThreadKind,
};

/// Traps whatever a thread of that kind has no use for: SIGSYS, which [`trap`](super::trap) handles.
pub(super) fn of(kind: ThreadKind) -> Result<BpfProgram, BackendError> {
    compile(&allowed::all(kind), true)
}

/// Answers what libraries try by themselves with EACCES. Of several filters the strictest answer counts, and a
/// trap is stricter: so what is here is in the other one as well.
pub(super) fn of_refusals() -> Result<BpfProgram, BackendError> {
    compile(allowed::REFUSED, false)
}

fn compile(calls: &[Call], allow: bool) -> Result<BpfProgram, BackendError> {
    let refuse = SeccompAction::Errno(libc::EACCES.unsigned_abs());
    let (matched, other) = if allow {
        (SeccompAction::Allow, SeccompAction::Trap)
    } else {
        (refuse, SeccompAction::Allow)
    };
    let refused = if allow { allowed::REFUSED } else { &[] };
    let mut rules = BTreeMap::new();
    for call in calls.iter().chain(refused) {
        rules.insert(call.number, self::rules(call.only)?);
    }
    SeccompFilter::new(rules, other, matched, TargetArch::x86_64)?.try_into()
}

/// One of these has to match; none: always.
fn rules(only: Only) -> Result<Vec<SeccompRule>, BackendError> {
    let is = |argument, length, op, value| {
        SeccompRule::new(vec![SeccompCondition::new(argument, length, op, value)?])
    };
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
    }
}
