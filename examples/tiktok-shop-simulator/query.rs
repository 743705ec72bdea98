//! Query strings, read strictly (`application/x-www-form-urlencoded`).
//!
//! Read by hand on purpose: a client that encodes a token wrongly must be found out, not helped.

use std::collections::BTreeMap;
use std::str::FromStr;

/// The parameters of a query, each at most once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Params(BTreeMap<String, String>);

impl Params {
    /// Parses what stands after the `?`.
    ///
    /// # Errors
    /// Says what cannot be read, without repeating a value.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut params = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or("the name of a query parameter is not encoded correctly")?;
            let value = decode(value).ok_or_else(|| format!("the query parameter {name} is not encoded correctly"))?;
            if params.insert(name.clone(), value).is_some() {
                return Err(format!("the query parameter {name} comes twice"));
            }
        }
        Ok(Self(params))
    }

    /// Takes a parameter out.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// Takes a parameter out, parsed.
    ///
    /// # Errors
    /// Says that it is not what it should be.
    pub fn value<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, String> {
        self.text(name)
            .map(|text| text.parse().map_err(|_| format!("the query parameter {name} cannot be {text:?}")))
            .transpose()
    }

    /// All that were not taken out yet.
    pub fn rest(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Names a parameter that nobody took: misspelt, it would otherwise change the meaning unnoticed.
    pub fn end(self) -> Result<(), String> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("there is no query parameter {name} here")),
        }
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                let digit = |byte: u8| char::from(byte).to_digit(16);
                u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?
            }
            other => *other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_as_forms_are() {
        let mut params = Params::parse("a=x%2B%2f%3D%26%25&b=1+2&c&limit=7").expect("a good query");
        assert_eq!(params.text("a").as_deref(), Some("x+/=&%"));
        assert_eq!(params.text("b").as_deref(), Some("1 2"));
        assert_eq!(params.text("c").as_deref(), Some(""));
        assert_eq!(params.value("limit"), Ok(Some(7)));
        assert_eq!(params.end(), Ok(()));
    }

    #[test]
    fn what_is_not_encoded_correctly_or_comes_twice_is_refused() {
        for query in ["a=%", "a=%4", "a=%zz", "a=%ff", "%=a", "a=1&a=2", "a=%+1"] {
            assert!(Params::parse(query).is_err(), "{query}");
        }
    }

    #[test]
    fn a_parameter_that_nobody_takes_is_named() {
        let params = Params::parse("limt=7").expect("a good query");
        assert!(params.end().is_err_and(|why| why.contains("limt")));
    }
}
