//! `--confine` and `--user`.

use super::{ArgumentError, netdev::NetdevError, wrong};
use crate::{confine::ConfineConfig, privileges::User};

/// `on`, or `off`, which clap has made sure of.
pub(super) fn confine(
    text: &str,
    user: Option<User>,
) -> Result<Option<ConfineConfig>, ArgumentError> {
    match (text, user) {
        ("off", None) => Ok(None),
        ("off", Some(User { uid, gid })) => Err(wrong("--user", &format!("{uid}:{gid}"))(
            NetdevError::NotConfined,
        )),
        _ => Ok(Some(ConfineConfig { user })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_user_is_part_of_it() {
        let user = Some(User { uid: 1, gid: 2 });
        assert_eq!(confine("off", None).unwrap(), None);
        assert_eq!(confine("on", user).unwrap(), Some(ConfineConfig { user }));
        assert_eq!(
            confine("off", user).unwrap_err().to_string(),
            "--user 1:2: becoming another user is part of the confinement: leave --confine off out"
        );
    }
}
