//! The user who runs the command.

use std::os::unix::fs::MetadataExt as _;

/// The user as named by the environment, and the host. Under `sudo` it is the caller; where the environment names nobody (a
/// service, a container) it is the account that the process runs under.
pub fn who() -> String {
    let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let user = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(named).or_else(account);
    let user = user.unwrap_or_else(|| "somebody".to_owned());
    format!("{user}@{}", gethostname::gethostname().to_string_lossy())
}

fn account() -> Option<String> {
    let uid = std::fs::metadata("/proc/self").ok()?.uid();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    // A container may run under a uid without a name.
    Some(name_of(uid, &accounts).map_or_else(|| format!("uid-{uid}"), str::to_owned))
}

/// The name of an account; see passwd(5).
fn name_of(uid: u32, accounts: &str) -> Option<&str> {
    let uid = uid.to_string();
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1) == Some(uid.as_str())).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_known_by_its_number() {
        let accounts = "root:x:0:0:root:/root:/bin/sh\n# none\n:x:7:7::/:\nanna:x:1000:1000:Anna,,,:/home/anna:/bin/bash\n";
        assert_eq!(name_of(0, accounts), Some("root"));
        assert_eq!(name_of(1000, accounts), Some("anna"));
        assert_eq!((name_of(7, accounts), name_of(100, accounts), name_of(1, "")), (None, None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn whoever_runs_this_has_a_name() {
        let account = account().unwrap();
        assert!(!account.is_empty() && account != "somebody", "{account}");
    }
}
