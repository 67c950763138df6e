//! Who is at the keyboard.

/// The user, as the environment names them, and the host. Behind `sudo` it is whoever called it.
pub fn who() -> String {
    let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let user = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(named).unwrap_or_else(|| "somebody".to_owned());
    format!("{user}@{}", gethostname::gethostname().to_string_lossy())
}
