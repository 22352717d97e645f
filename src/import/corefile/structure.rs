//! Server blocks, their directives, and snippets, which are put in where they are imported.
//!
//! Pure. Words stand on lines; a brace opens what is within a block or a directive. What cannot be read is refused.

use super::super::{Unreadable, words};

/// `ZONE… { … }`.
pub(super) struct Block {
    pub line: usize,
    pub keys: Vec<String>,
    pub directives: Vec<Directive>,
}

/// A plugin, or an option of one, with what stands within its braces.
#[derive(Clone)]
pub(super) struct Directive {
    pub line: usize,
    pub words: Vec<String>,
    pub inner: Vec<Directive>,
}

impl Directive {
    pub fn word(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    pub fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or(&[])
    }

    pub fn shown(&self) -> String {
        self.words.join(" ")
    }
}

type Tokens = std::iter::Peekable<std::vec::IntoIter<(usize, String)>>;

/// The blocks of a file, in their order.
pub(super) fn blocks(text: &str) -> Result<Vec<Block>, Unreadable> {
    let mut tokens = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("apiVersion:") || line.starts_with("kind:") {
            let what = "this is a Kubernetes manifest, not the Corefile in it";
            let hint =
                "kubectl -n kube-system get configmap coredns -o jsonpath='{.data.Corefile}'; or node-local-dns";
            return Err(Unreadable::new(index + 1, what, hint));
        }
        let Some(words) = words::split(line, &['"']) else {
            return Err(Unreadable::new(index + 1, "a quote is not closed", "close it on its line"));
        };
        tokens.extend(words.into_iter().map(|word| (index + 1, word)));
    }
    let mut tokens: Tokens = tokens.into_iter().peekable();
    let mut blocks = Vec::new();
    let mut snippets: Vec<(String, Vec<Directive>)> = Vec::new();
    while let Some((line, first)) = tokens.next() {
        let mut keys = vec![first];
        loop {
            match tokens.next() {
                Some((_, word)) if word == "{" => break,
                Some((_, word)) if word == "}" => return Err(Unreadable::new(line, STRAY, STRAY_HINT)),
                Some((_, word)) => keys.push(word),
                None => {
                    let what = format!("{:?} is followed by no block", words::shown(&keys.join(" ")));
                    return Err(Unreadable::new(line, what, "write its plugins between { and }"));
                }
            }
        }
        if keys.iter().any(|k| k == "}" || k == "{") {
            return Err(Unreadable::new(line, STRAY, STRAY_HINT));
        }
        let directives = inner(&mut tokens, line, 0)?;
        match keys.as_slice() {
            [one] if one.starts_with('(') && one.ends_with(')') => {
                let name = one.trim_matches(['(', ')']).to_owned();
                let directives = with_snippets(directives, &snippets);
                snippets.push((name, directives));
            }
            _ => {
                let keys = keys.iter().flat_map(|k| k.split(',')).filter(|k| !k.is_empty()).map(str::to_owned);
                let directives = with_snippets(directives, &snippets);
                blocks.push(Block { line, keys: keys.collect(), directives });
            }
        }
    }
    Ok(blocks)
}

const STRAY: &str = "a brace stands where none is expected";
const STRAY_HINT: &str = "a server block is `ZONE… {`, its plugins, and `}` on a line of its own";
const DEPTH_MAX: usize = 8;
/// Snippets that import others could grow without end.
const DIRECTIVES_MAX: usize = 10_000;

/// The directives up to the brace that closes them.
fn inner(tokens: &mut Tokens, opened: usize, depth: usize) -> Result<Vec<Directive>, Unreadable> {
    if depth > DEPTH_MAX {
        return Err(Unreadable::new(opened, "blocks within blocks, too deep", "no plugin needs more than two"));
    }
    let mut directives: Vec<Directive> = Vec::new();
    loop {
        let Some((line, word)) = tokens.next() else {
            return Err(Unreadable::new(opened, "a block is not closed", "write } on a line of its own"));
        };
        if word == "}" {
            return Ok(directives);
        }
        let mut directive = Directive { line, words: vec![word], inner: Vec::new() };
        while let Some((_, word)) = tokens.next_if(|(at, word)| *at == line && word != "}") {
            if word == "{" {
                directive.inner = inner(tokens, line, depth + 1)?;
                break;
            }
            directive.words.push(word);
        }
        if directive.words[0] == "{" {
            return Err(Unreadable::new(line, STRAY, STRAY_HINT));
        }
        directives.push(directive);
    }
}

/// `import NAME` of a snippet that stands before is what the snippet has.
fn with_snippets(directives: Vec<Directive>, snippets: &[(String, Vec<Directive>)]) -> Vec<Directive> {
    let mut whole = Vec::new();
    for directive in directives {
        let snippet = match directive.words.as_slice() {
            [import, name] if import == "import" => snippets.iter().rev().find(|(known, _)| known == name),
            _ => None,
        };
        match snippet {
            Some((_, inside)) if whole.len() + inside.len() <= DIRECTIVES_MAX => whole.extend(inside.iter().cloned()),
            _ => whole.push(directive),
        }
    }
    whole
}
