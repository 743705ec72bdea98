//! TikTok's page on which a seller authorizes an app, and the redirect that comes of it.

use tiktok_shop_operator::api::Region;
use tiktok_shop_operator::tokens::SecretText;
use zeroize::Zeroizing;

/// The longest redirect that is read, in bytes; a real one has a few hundred.
pub const LONGEST: usize = 8 << 10;

/// The page for a region, by which the redirect can be told from any other: it brings the state back.
pub fn page(region: Region, service_id: &str, state: &str) -> String {
    let host = match region {
        Region::Global => "services.tiktokshop.com",
        Region::Us => "services.us.tiktokshop.com",
    };
    format!("https://{host}/open/authorize?service_id={service_id}&state={state}")
}

/// May this stand in the page's address as it is?
pub fn is_service_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Why a redirect gives no code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no code in it.
    NoCode,
    /// It does not come from the page that was shown.
    State,
    /// The seller, or TikTok, said no: in one word.
    Denied(String),
    /// It is longer than any redirect.
    TooLong,
}

/// The code in what a person pasted: the address that the browser was sent to, or the code alone.
///
/// `state` is the one that was given out, where one was.
pub fn pasted(text: &str, state: Option<&str>) -> Result<SecretText, Refused> {
    let text = text.trim().trim_matches(['"', '\'']);
    if text.len() > LONGEST {
        return Err(Refused::TooLong);
    }
    match text.split_once('?') {
        Some((_, query)) => of_query(query, state),
        None if text.contains("://") || text.contains(char::is_whitespace) || text.contains(char::is_control) => {
            Err(Refused::NoCode)
        }
        None => SecretText::new(text.to_owned()).ok_or(Refused::NoCode),
    }
}

/// The code in the query of a redirect.
pub fn of_query(query: &str, state: Option<&str>) -> Result<SecretText, Refused> {
    let query = query.split('#').next().unwrap_or_default();
    let value = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| decoded(value)).filter(|value| !value.is_empty())
    };
    let (given, error) = (value("state"), value("error"));
    // A denial may come without a state.
    if let (Some(state), true) = (state, error.is_none() || given.is_some())
        && given.as_deref().map(String::as_str) != Some(state)
    {
        return Err(Refused::State);
    }
    if let Some(error) = error {
        return Err(Refused::Denied(crate::messages::one_line(&error)));
    }
    let code = value("code").ok_or(Refused::NoCode)?;
    if code.contains(char::is_control) {
        return Err(Refused::NoCode);
    }
    SecretText::from_bytes(code.as_bytes()).ok().flatten().ok_or(Refused::NoCode)
}

/// A value of a query without its escapes; `None` where they make no text. A plus stays one: no value that is looked for
/// holds a space, and a code may hold a plus. Wiped when dropped.
fn decoded(value: &str) -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(value.len()));
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(result: Result<SecretText, Refused>) -> Result<String, Refused> {
        result.map(|code| code.expose().to_owned())
    }

    #[test]
    fn the_page_is_that_of_the_region() {
        assert_eq!(
            page(Region::Global, "7172", "abc"),
            "https://services.tiktokshop.com/open/authorize?service_id=7172&state=abc"
        );
        assert_eq!(
            page(Region::Us, "7172", "abc"),
            "https://services.us.tiktokshop.com/open/authorize?service_id=7172&state=abc"
        );
    }

    #[test]
    fn a_service_id_can_not_change_the_address() {
        for good in ["7172839405162738495", "a-b_c.d"] {
            assert!(is_service_id(good), "{good}");
        }
        for bad in ["", "7&state=x", "7/..", "7 1", "ệ", &"7".repeat(65)] {
            assert!(!is_service_id(bad), "{bad}");
        }
    }

    #[test]
    fn the_code_is_found_in_an_address_and_alone_and_nothing_else_is_taken_for_one() {
        let denied = |word: &str| Err(Refused::Denied(word.to_owned()));
        let code = |code: &str| Ok(code.to_owned());
        for (text, expected) in [
            ("https://app.example/cb?app_key=k&code=ROW_1-x&state=s&locale=vi", code("ROW_1-x")),
            ("  https://app.example/cb?state=s&code=ROW_1\n", code("ROW_1")),
            ("'https://app.example/cb?state=s&code=ROW_1'", code("ROW_1")),
            ("https://app.example/cb?code=a%2Bb%3D%26%C3%A9+c&state=s#_=_", code("a+b=&é+c")),
            ("http://127.0.0.1:8484/?code=ROW_1&state=%73", code("ROW_1")),
            ("ROW_1-x", code("ROW_1-x")),
            ("https://app.example/cb?code=ROW_1", Err(Refused::State)),
            ("https://app.example/cb?code=ROW_1&state=", Err(Refused::State)),
            ("https://app.example/cb?code=ROW_1&state=other", Err(Refused::State)),
            ("https://app.example/cb?code=ROW_1&state=S", Err(Refused::State)),
            ("https://app.example/cb?state=s", Err(Refused::NoCode)),
            ("https://app.example/cb?state=s&code=", Err(Refused::NoCode)),
            ("https://app.example/cb?state=s&code=%", Err(Refused::NoCode)),
            ("https://app.example/cb?state=s&code=%ff", Err(Refused::NoCode)),
            ("https://app.example/cb?state=s&code=a%0Ab", Err(Refused::NoCode)),
            ("https://app.example/cb?state=s&xcode=a", Err(Refused::NoCode)),
            ("https://app.example/cb", Err(Refused::NoCode)),
            ("two words", Err(Refused::NoCode)),
            ("", Err(Refused::NoCode)),
            (" \n", Err(Refused::NoCode)),
            ("https://app.example/cb?error=auth_denied&state=s", denied("auth_denied")),
            ("https://app.example/cb?error=auth_denied", denied("auth_denied")),
            ("https://app.example/cb?error=auth_denied&state=other", Err(Refused::State)),
            ("https://app.example/cb?error=a%1B%5B2Jb&state=s", denied("a [2Jb")),
            (&"x".repeat(LONGEST + 1), Err(Refused::TooLong)),
        ] {
            assert_eq!(told(pasted(text, Some("s"))), expected, "{text:?}");
        }
        // Where no state was given out, none is asked for.
        assert_eq!(told(pasted("https://app.example/cb?code=ROW_1&state=other", None)), code("ROW_1"));
    }
}
