//! Prometheus expressions, read as far as names go: which metrics an expression asks for, with which labels and values.

use std::collections::BTreeSet;

/// A metric in an expression.
#[derive(Debug, PartialEq, Eq)]
pub struct Selector {
    pub metric: String,
    /// Label, operator and value of each matcher.
    pub matchers: Vec<(String, String, String)>,
}

/// The names in an expression.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub selectors: Vec<Selector>,
    /// What it groups by or joins on.
    pub labels: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    /// An operator of a matcher.
    Match(String),
    Other(char),
}

/// What stands before a list of labels.
const CLAUSES: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const OPERATORS: [&str; 7] = ["and", "or", "unless", "bool", "offset", "inf", "nan"];

/// Reads an expression; panics where it is none that it understands.
pub fn names(expression: &str) -> Names {
    let tokens = tokens(expression);
    let mut names = Names::default();
    let mut at = 0;
    while at < tokens.len() {
        let Token::Word(word) = &tokens[at] else {
            at += 1;
            continue;
        };
        let next = tokens.get(at + 1);
        at += 1;
        if CLAUSES.contains(&word.as_str()) {
            if next == Some(&Token::Other('(')) {
                let end = position(&tokens, at, &Token::Other(')'));
                let words = tokens[at..end].iter().filter_map(|token| match token {
                    Token::Word(label) => Some(label.clone()),
                    _ => None,
                });
                names.labels.extend(words);
                at = end + 1;
            }
        } else if next == Some(&Token::Other('(')) || is_aggregation(&tokens, at) {
            // A function.
        } else if !OPERATORS.contains(&word.to_lowercase().as_str()) && !word.starts_with(|c: char| c.is_ascii_digit())
        {
            let mut matchers = Vec::new();
            if next == Some(&Token::Other('{')) {
                let end = position(&tokens, at, &Token::Other('}'));
                for matcher in tokens[at + 1..end].split(|token| *token == Token::Other(',')) {
                    let [Token::Word(label), Token::Match(operator), Token::Text(value)] = matcher else {
                        panic!("not a matcher: {matcher:?} in {expression}");
                    };
                    matchers.push((label.clone(), operator.clone(), value.clone()));
                }
                at = end + 1;
            }
            names.selectors.push(Selector { metric: word.clone(), matchers });
        }
    }
    names
}

/// `sum by (x) (…)`: what stands before the clause is no metric.
fn is_aggregation(tokens: &[Token], at: usize) -> bool {
    matches!(tokens.get(at), Some(Token::Word(word)) if word == "by" || word == "without")
}

fn position(tokens: &[Token], from: usize, wanted: &Token) -> usize {
    let found = tokens[from..].iter().position(|token| token == wanted);
    from + found.unwrap_or_else(|| panic!("{wanted:?} is missing after {:?}", &tokens[from..]))
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first == '"' {
            let end = rest[1..].find('"').unwrap_or_else(|| panic!("a text does not end: {expression}"));
            assert!(!rest[1..=end].contains('\\'), "escapes are not read: {expression}");
            tokens.push(Token::Text(rest[1..=end].to_owned()));
            end + 2
        } else if first == '[' {
            // A time.
            rest.find(']').unwrap_or_else(|| panic!("a range does not end: {expression}")) + 1
        } else if first.is_alphanumeric() || matches!(first, '_' | ':' | '$') {
            let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '.' | '$');
            let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            end
        } else if let Some(operator) =
            ["=~", "!~", "!=", "==", ">=", "<=", "="].iter().find(|it| rest.starts_with(**it))
        {
            tokens.push(Token::Match((*operator).to_owned()));
            operator.len()
        } else {
            tokens.push(Token::Other(first));
            first.len_utf8()
        };
        rest = rest[length..].trim_start();
    }
    tokens
}

#[test]
fn names_are_read_out_of_expressions() {
    let names = names(
        "sum by (a, b) (increase(m_total{x=\"1\",y=~\"p|q\"}[5m]) * on (c) group_left (d) n) > 0 or on () absent(o) and p == 1",
    );
    let found: Vec<_> = names.selectors.iter().map(|selector| selector.metric.as_str()).collect();
    assert_eq!(found, ["m_total", "n", "o", "p"]);
    let matcher = |label: &str, operator: &str, value: &str| (label.to_owned(), operator.to_owned(), value.to_owned());
    assert_eq!(names.selectors[0].matchers, [matcher("x", "=", "1"), matcher("y", "=~", "p|q")]);
    assert_eq!(names.labels, ["a", "b", "c", "d"].map(str::to_owned).into());
}
