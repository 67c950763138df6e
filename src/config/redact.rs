//! Hides secrets: mistakes end up in terminals, logs and tickets.

/// Whether the value at this dotted path may be a secret.
///
/// In doubt it is hidden: a hidden file name costs a look into the file, a shown password costs the password.
pub fn is_secret(dotted: &str) -> bool {
    const WORDS: [&str; 10] =
        ["password", "passwd", "passphrase", "secret", "token", "jaas", "credential", "private", "userinfo", "authorization"];
    let path = dotted.to_ascii_lowercase();
    WORDS.iter().any(|word| path.contains(word))
        || path.split(['.', '_', '-']).any(|part| matches!(part, "key" | "keys" | "pem" | "pass" | "pwd" | "auth"))
        || path.ends_with("sasl.oauthbearer.config")
}

/// The text without the parts of URLs that may be secret: user and password, values of the query, and the fragment. Text without a
/// scheme is treated as a URL that lacks it.
pub fn hide_in_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // Each further URL begins after the scheme of the one before it.
    while let Some(at) = rest.find("://") {
        let (before, behind) = rest.split_at(at + 3);
        out.push_str(before);
        let length = behind.find(is_end_of_url).unwrap_or(behind.len());
        out.push_str(&hidden(&behind[..length]));
        rest = &behind[length..];
    }
    if out.is_empty() { hidden(rest) } else { out + rest }
}

fn is_end_of_url(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '`' | '<' | '>' | '(' | ')')
}

/// The part after the scheme.
fn hidden(rest: &str) -> String {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = authority.rfind('@').map_or_else(|| authority.to_owned(), |at| format!("***{}", &authority[at..]));
    let (path, fragment) = path.split_once('#').map_or((path, ""), |(path, _)| (path, "#***"));
    let Some((path, query)) = path.split_once('?') else { return format!("{authority}{path}{fragment}") };
    let shown = |pair: &str| match pair.split_once('=') {
        Some((name, value)) if !value.is_empty() => format!("{name}=***"),
        Some(_) => pair.to_owned(),
        None if pair.is_empty() => String::new(),
        None => "***".to_owned(),
    };
    let query: Vec<String> = query.split('&').map(shown).collect();
    format!("{authority}{path}?{}{fragment}", query.join("&"))
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
    fn what_a_url_may_hold_of_secrets_is_hidden() {
        for (url, shown) in [
            ("http://me:pw@host/a@b", "http://***@host/a@b"),
            ("http://host/a@b", "http://host/a@b"),
            ("https://h:1/p?token=abc&x=&y", "https://h:1/p?token=***&x=&***"),
            ("https://h/p?abc", "https://h/p?***"),
            ("https://h/p#access_token=abc", "https://h/p#***"),
            ("http://a:b@c,http://d:e@f?g=h", "http://***@c,http://***@f?g=***"),
            ("\"http://a:b@c\", and http://d?e=f here", "\"http://***@c\", and http://d?e=*** here"),
            ("me:pw@host/a", "***@host/a"),
            ("host/a?token=abc", "host/a?token=***"),
            ("5s", "5s"),
        ] {
            assert_eq!(hide_in_urls(url), shown);
        }
    }
}
