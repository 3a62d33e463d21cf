//! Tests wait for conditions: they do not sleep by themselves, and do not assert how fast something was.

use syn::visit::{self, Visit};

use crate::sources::{Source, is_test_only, item_attributes, line, of_both};

/// The file with the ways to wait.
const TESTKIT: &str = "tests/testkit/src/lib.rs";

#[test]
fn tests_wait_only_with_the_ways_of_the_testkit() {
    let found = of_both(sleeps);
    let ways = "wait for a condition with testkit::eventually; let_pass says why nothing else tells";
    assert!(found.is_empty(), "{ways}:\n{}", found.join("\n"));
}

#[test]
fn no_test_asserts_an_upper_bound_of_real_time() {
    let found = of_both(bounds);
    assert!(found.is_empty(), "a busy machine is slower than any bound:\n{}", found.join("\n"));
}

fn sleeps(sources: &[Source]) -> Vec<String> {
    findings(sources, |times| times.sleeps)
}

fn bounds(sources: &[Source]) -> Vec<String> {
    findings(sources, |times| times.bounds)
}

fn findings(sources: &[Source], of: fn(Times) -> Vec<usize>) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| source.path != TESTKIT) {
        let mut times = Times { is_test: source.product_lines == 0, ..Times::default() };
        times.visit_file(&source.syntax);
        found.extend(of(times).iter().map(|line| format!("{}:{line}", source.path)));
    }
    found
}

#[derive(Default)]
struct Times {
    /// Whether the visited code belongs to tests.
    is_test: bool,
    /// Variables that contain how long something took.
    spans: Vec<syn::Ident>,
    sleeps: Vec<usize>,
    bounds: Vec<usize>,
}

impl Times {
    /// Whether this is a duration: `began.elapsed()`, a variable that contains it, or a number derived from one.
    fn is_span(&self, expression: &syn::Expr) -> bool {
        match expression {
            syn::Expr::MethodCall(call) => call.method == "elapsed" || self.is_span(&call.receiver),
            syn::Expr::Path(path) => path.path.get_ident().is_some_and(|name| self.spans.contains(name)),
            syn::Expr::Cast(it) => self.is_span(&it.expr),
            syn::Expr::Paren(it) => self.is_span(&it.expr),
            syn::Expr::Reference(it) => self.is_span(&it.expr),
            syn::Expr::Binary(it) => self.is_span(&it.left) || self.is_span(&it.right),
            _ => false,
        }
    }
}

impl<'ast> Visit<'ast> for Times {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let outer = self.is_test;
        self.is_test |= is_test_only(item_attributes(item));
        visit::visit_item(self, item);
        self.is_test = outer;
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        let outer = std::mem::take(&mut self.spans);
        visit::visit_item_fn(self, function);
        self.spans = outer;
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if let (syn::Pat::Ident(name), Some(value)) = (&local.pat, &local.init)
            && self.is_span(&value.expr)
        {
            self.spans.push(name.ident.clone());
        }
        visit::visit_local(self, local);
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        let is_sleep =
            |name: &syn::Ident| ["sleep", "sleep_until", "park_timeout"].iter().any(|it| name == it);
        if let syn::Expr::Path(path) = &*call.func
            && self.is_test
            && path.path.segments.last().is_some_and(|last| is_sleep(&last.ident))
        {
            self.sleeps.push(line(call));
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        type Arguments = syn::punctuated::Punctuated<syn::Expr, syn::Token![,]>;
        let is_assertion = call.path.is_ident("assert") || call.path.is_ident("debug_assert");
        if let Ok(arguments) = call.parse_body_with(Arguments::parse_terminated) {
            if let Some(condition) = arguments.first().filter(|_| is_assertion && self.is_test) {
                let mut bounds = Bounds { times: self, found: Vec::new() };
                bounds.visit_expr(condition);
                let found = bounds.found;
                self.bounds.extend(found);
            }
            // The arguments of macros are code, too.
            arguments.iter().for_each(|argument| self.visit_expr(argument));
        }
    }
}

/// Whether this is the time of one of the testkit's clocks, or a number derived from it.
fn reads_clock(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::Call(call) => match &*call.func {
            syn::Expr::Path(path) => {
                path.path.segments.last().is_some_and(|name| name.ident == "now" || name.ident == "now_ms")
            }
            _ => false,
        },
        syn::Expr::Cast(it) => reads_clock(&it.expr),
        syn::Expr::Paren(it) => reads_clock(&it.expr),
        syn::Expr::Binary(it) => reads_clock(&it.left) || reads_clock(&it.right),
        _ => false,
    }
}

/// Comparisons that hold only if something was fast.
struct Bounds<'t> {
    times: &'t Times,
    found: Vec<usize>,
}

impl<'ast> Visit<'ast> for Bounds<'_> {
    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        let small = match binary.op {
            syn::BinOp::Lt(_) | syn::BinOp::Le(_) => Some(&binary.left),
            syn::BinOp::Gt(_) | syn::BinOp::Ge(_) => Some(&binary.right),
            _ => None,
        };
        if small.is_some_and(|small| self.times.is_span(small) || reads_clock(small)) {
            self.found.push(line(binary));
        }
        visit::visit_expr_binary(self, binary);
    }
}

#[test]
fn the_rules_find_what_breaks_them() {
    let text = "//! A file.
fn product() { std::thread::sleep(A); }
#[cfg(test)]
mod tests {
    fn sleeps() { tokio::time::sleep(A).await; }
    fn joins() { tokio::join!(async { sleep(A).await }, b); }
    fn waits() { testkit::let_pass(A); testkit::eventually(\"it\", || None); }
    fn late() { assert!(began.elapsed() >= A, \"{:?}\", began.elapsed()); assert!(A < began.elapsed()); }
    fn quick() { assert!(is_there && began.elapsed() < A); }
    fn named() { let took = began.elapsed(); assert!(A >= took); }
    fn clock() { assert!(now() <= at, \"{at}\"); assert!(testkit::now_ms() - at < 5); assert!(now() > at); }
    fn other(took: u32) { assert!(took < 4); }
    fn counts() { let sent = eventually(A, || (began.elapsed() > A).then_some(7)); assert!(sent < 9); }
}
";
    let mixed = [Source::parsed("src/a.rs", text)];
    assert_eq!(sleeps(&mixed), ["src/a.rs:5", "src/a.rs:6"]);
    assert_eq!(bounds(&mixed), ["src/a.rs:9", "src/a.rs:10", "src/a.rs:11", "src/a.rs:11"]);
}
