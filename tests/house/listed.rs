//! The documentation lists what exists: the calls of the admin API, and the members of a request's log line.

use std::collections::BTreeSet;

use syn::visit::{self, Visit};
use testkit::documents::{document, quoted, table};

use crate::sources::{Source, of_crate, of_tests};

/// The members of every log line, whatever it is about.
const OF_EVERY_LINE: [&str; 3] = ["ts", "level", "target"];

#[test]
fn the_table_of_admin_calls_lists_every_route() {
    let listed = calls_listed(&document("docs/admin.md"));
    let found = differences(&listed, &of_crate(calls_served));
    assert!(found.is_empty(), "docs/admin.md:\n{}", found.join("\n"));
}

#[test]
fn the_table_of_log_members_lists_what_is_written() {
    let listed = members_listed(&document("docs/monitoring.md"));
    let mut written = of_crate(members_written);
    written.extend(OF_EVERY_LINE.map(str::to_owned));
    let found = differences(&listed, &written);
    assert!(found.is_empty(), "docs/monitoring.md:\n{}", found.join("\n"));
    let texts = of_tests(texts);
    let missed: Vec<&String> = listed.iter().filter(|name| !texts.contains(*name)).collect();
    assert!(missed.is_empty(), "no test looks at these members: {missed:?}");
}

fn differences(listed: &BTreeSet<String>, real: &BTreeSet<String>) -> Vec<String> {
    let gone = listed.difference(real).map(|name| format!("{name} is listed, but not there"));
    gone.chain(real.difference(listed).map(|name| format!("{name} is not listed"))).collect()
}

/// Method and path of each call, without its query.
fn calls_listed(text: &str) -> BTreeSet<String> {
    let rows = table(text, "The admin API");
    let calls = rows.iter().flat_map(|row| quoted(&row[0]));
    calls.map(|call| call.split('?').next().unwrap_or_default().to_owned()).collect()
}

/// Method and path of each `.route("/v1/…", get(…).post(…))` of the admin API.
fn calls_served(sources: &[Source]) -> BTreeSet<String> {
    struct Routes(BTreeSet<String>);
    impl<'ast> Visit<'ast> for Routes {
        fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
            if call.method == "route"
                && let (Some(path), Some(handlers)) = (text_of(call.args.first()), call.args.last())
            {
                self.0.extend(methods(handlers).into_iter().map(|method| format!("{method} {path}")));
            }
            visit::visit_expr_method_call(self, call);
        }
    }
    let mut routes = Routes(BTreeSet::new());
    let of_api = sources.iter().filter(|file| file.path.starts_with("src/admin/api/"));
    of_api.for_each(|file| routes.visit_file(&file.product));
    routes.0
}

/// The methods of `get(a).post(b)`.
fn methods(handlers: &syn::Expr) -> Vec<String> {
    match handlers {
        syn::Expr::MethodCall(call) => {
            let mut methods = methods(&call.receiver);
            methods.push(call.method.to_string().to_uppercase());
            methods
        }
        syn::Expr::Call(call) => match &*call.func {
            syn::Expr::Path(path) => path
                .path
                .segments
                .last()
                .map(|name| name.ident.to_string().to_uppercase())
                .into_iter()
                .collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn text_of(expression: Option<&syn::Expr>) -> Option<String> {
    match expression? {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

fn members_listed(text: &str) -> BTreeSet<String> {
    table(text, "Log lines").iter().flat_map(|row| quoted(&row[0])).collect()
}

/// The names that src/log/access.rs writes: first in a pair, or in a call for the line. A name that is chosen
/// elsewhere begins with `claimed_`.
fn members_written(sources: &[Source]) -> BTreeSet<String> {
    struct Names(BTreeSet<String>);
    impl<'ast> Visit<'ast> for Names {
        fn visit_expr_tuple(&mut self, pair: &'ast syn::ExprTuple) {
            self.0.extend(text_of(pair.elems.first()));
            visit::visit_expr_tuple(self, pair);
        }

        fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
            if ["text", "integer", "display"].iter().any(|name| call.method == name) {
                self.0.extend(text_of(call.args.first()));
            }
            visit::visit_expr_method_call(self, call);
        }
    }
    let mut names = Names(BTreeSet::new());
    let of_log = sources.iter().filter(|file| file.path == "src/log/access.rs");
    of_log.for_each(|file| names.visit_file(&file.product));
    // A placeholder for a missing one.
    names.0.remove("claimed");
    let chosen = texts_of_product(sources).into_iter().filter(|text| text.starts_with("claimed_"));
    names.0.extend(chosen);
    names.0
}

/// Every string literal of tests.
fn texts(sources: &[Source]) -> BTreeSet<String> {
    let mut texts = Texts(BTreeSet::new());
    let of_house = |file: &&Source| !file.path.starts_with("tests/house/");
    sources.iter().filter(of_house).for_each(|file| texts.visit_file(&file.syntax));
    texts.0
}

fn texts_of_product(sources: &[Source]) -> BTreeSet<String> {
    let mut texts = Texts(BTreeSet::new());
    sources.iter().for_each(|file| texts.visit_file(&file.product));
    texts.0
}

struct Texts(BTreeSet<String>);

impl Texts {
    fn tokens(&mut self, tokens: proc_macro2::TokenStream) {
        for token in tokens {
            match token {
                proc_macro2::TokenTree::Group(group) => self.tokens(group.stream()),
                proc_macro2::TokenTree::Literal(literal) => {
                    if let syn::Lit::Str(text) = syn::Lit::new(literal) {
                        self.0.insert(text.value());
                    }
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Texts {
    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.0.insert(text.value());
    }

    fn visit_macro(&mut self, it: &'ast syn::Macro) {
        self.tokens(it.tokens.clone());
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

#[test]
fn the_rules_of_lists_see_what_they_look_for() {
    let code =
        "fn r() { Router::new().route(\"/v1/a\", get(f).post(g)).route(\"/v1/b/{id}\", method::delete(h)) }";
    let served = calls_served(&[Source::parsed("src/admin/api/a.rs", code)]);
    let page = "# The admin API\n| call | |\n|---|---|\n| `GET /v1/a?x=…`, `POST /v1/a` | |\n| `PUT /v1/b/{id}` | |\n";
    assert_eq!(
        differences(&calls_listed(page), &served),
        ["PUT /v1/b/{id} is listed, but not there", "DELETE /v1/b/{id} is not listed"]
    );
    let code = "fn f() { for (name, value) in [(\"reason\", 1), (\"claimed\", 2)] { line.text(name, value) } line.integer(\"status\", 1); g(\"x\") }";
    let chosen = Source::parsed("src/gate/access.rs", "fn f() -> &str { \"claimed_issuer\" }");
    let written = members_written(&[Source::parsed("src/log/access.rs", code), chosen]);
    assert_eq!(written, ["claimed_issuer", "reason", "status"].map(str::to_owned).into());
    let page = "### Log lines\n| member | |\n|---|---|\n| `reason`, `gone` | `x` |\n";
    assert_eq!(
        differences(&members_listed(page), &written),
        ["gone is listed, but not there", "claimed_issuer is not listed", "status is not listed"]
    );
}
