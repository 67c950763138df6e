//! What must not be shown: mistakes end up in terminals, logs and tickets.

/// Whether what stands under this dotted path may be a secret.
///
/// Rather too many than too few: a hidden file name costs a look into the file, a shown password costs the password.
pub fn is_secret(dotted: &str) -> bool {
    const WORDS: [&str; 10] =
        ["password", "passwd", "passphrase", "secret", "token", "jaas", "credential", "private", "userinfo", "authorization"];
    let path = dotted.to_ascii_lowercase();
    WORDS.iter().any(|word| path.contains(word))
        || path.split(['.', '_', '-']).any(|part| matches!(part, "key" | "keys" | "pem" | "pass" | "pwd" | "auth"))
        || path.ends_with("sasl.oauthbearer.config")
}

/// The text without the user and password of a URL in it.
pub fn hide_userinfo(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    match authority.rfind('@') {
        Some(at) => format!("{scheme}://***{}", &rest[at..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_names() {
        for secret in [
            "kafka.sasl.password",
            "kafka.ssl.key.pem",
            "kafka.ssl.key.location",
            "kafka.producer.sasl.oauthbearer.client.secret",
            "kafka.sasl.jaas.config",
            "kafka.basic.auth.user.info",
        ] {
            assert!(is_secret(secret), "{secret}");
        }
        for plain in ["kafka.bootstrap.servers", "ladder.monkey.tiers", "kafka.sasl.username", "ladder.x.handler.url"] {
            assert!(!is_secret(plain), "{plain}");
        }
    }

    #[test]
    fn the_user_of_a_url_is_hidden() {
        assert_eq!(hide_userinfo("http://me:pw@host/a@b"), "http://***@host/a@b");
        assert_eq!(hide_userinfo("http://host/a@b"), "http://host/a@b");
        assert_eq!(hide_userinfo("5s"), "5s");
    }
}
