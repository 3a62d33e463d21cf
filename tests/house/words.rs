//! Forbids phrases that an engineer would have to read twice, in messages, doc comments and documentation.

use syn::visit::{self, Visit};

use crate::sources::{Source, files, line, of_crate, root};

/// The phrases, one per line, in lower case.
const FORBIDDEN: &str = include_str!("words.txt");

#[test]
fn forbidden_turns_of_phrase_are_not_used() {
    let mut found = of_crate(phrases_in_sources);
    let mut pages = files("docs", ".md");
    for name in ["README.md", "CHANGELOG.md", "config/reference.toml", "config/portcullis.toml"] {
        pages.push((name.to_owned(), std::fs::read_to_string(root().join(name)).unwrap()));
    }
    for (path, text) in pages {
        found.extend(phrases(&text).into_iter().map(|phrase| format!("{path}: {phrase}")));
    }
    assert!(found.is_empty(), "say it in plain words:\n{}", found.join("\n"));
}

/// The forbidden phrases in a text, even across line breaks.
fn phrases(text: &str) -> Vec<&'static str> {
    let is_letter = |c: char| c.is_alphanumeric() || c == '\'';
    let words: Vec<String> =
        text.split(|c: char| !is_letter(c)).filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
    let text = format!(" {} ", words.join(" "));
    FORBIDDEN.lines().filter(|phrase| text.contains(&format!(" {phrase} "))).collect()
}

fn phrases_in_sources(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for file in sources {
        let mut texts = Texts::default();
        texts.visit_file(&file.product);
        texts.end_of_comment();
        for (line, text) in texts.found {
            found.extend(phrases(&text).into_iter().map(|phrase| format!("{}:{line}: {phrase}", file.path)));
        }
    }
    found
}

/// Collects string literals, including those inside macros, and doc comments, each of which is one text.
#[derive(Default)]
struct Texts {
    found: Vec<(usize, String)>,
    comment: Option<(usize, String)>,
}

impl Texts {
    fn end_of_comment(&mut self) {
        self.found.extend(self.comment.take());
    }

    fn tokens(&mut self, tokens: proc_macro2::TokenStream) {
        for token in tokens {
            match token {
                proc_macro2::TokenTree::Group(group) => self.tokens(group.stream()),
                proc_macro2::TokenTree::Literal(literal) => {
                    let place = literal.span().start().line;
                    if let syn::Lit::Str(text) = syn::Lit::new(literal) {
                        self.found.push((place, text.value()));
                    }
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Texts {
    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.found.push((line(text), text.value()));
    }

    fn visit_macro(&mut self, it: &'ast syn::Macro) {
        self.tokens(it.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        let syn::Meta::NameValue(pair) = &attribute.meta else {
            if let syn::Meta::List(list) = &attribute.meta {
                self.tokens(list.tokens.clone());
            }
            return;
        };
        if let (true, syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. })) =
            (pair.path.is_ident("doc"), &pair.value)
        {
            let place = line(attribute);
            match &mut self.comment {
                Some((first, so_far)) if *first + so_far.matches('\n').count() == place => {
                    so_far.push_str(&text.value());
                    so_far.push('\n');
                }
                _ => {
                    self.end_of_comment();
                    self.comment = Some((place, text.value() + "\n"));
                }
            }
        }
        visit::visit_attribute(self, attribute);
    }
}

#[test]
fn the_rule_of_words_sees_what_it_looks_for() {
    let bad = "//! It serves\n//! whoever asks.\nfn f() { info!(\"keys cannot take turns\"); g(\"of \\\n  before\") }\n\
               #[arg(help = \"Likewise\")]\nstruct S;\n";
    let found = phrases_in_sources(&[Source::parsed("src/a.rs", bad)]);
    for phrase in ["whoever", "take turns", "of before", "likewise"] {
        assert!(found.iter().any(|it| it.ends_with(&format!(": {phrase}"))), "{phrase}: {found:?}");
    }
    let good = "//! Serves every client.\nfn whoever() { g(\"before\") }\n#[cfg(test)]\nmod tests { fn f() { g(\"whoever\") } }\n";
    assert_eq!(phrases_in_sources(&[Source::parsed("src/a.rs", good)]), [""; 0]);
    assert_eq!(phrases("take\nturns, and whoever-else"), ["take turns", "whoever"]);
    assert_eq!(
        phrases("a log-in session that is\nno method any\nmore"),
        ["any more", "is no method", "log in session"]
    );
}
