//! Secrets are not compared with `==`, whose time reveals how many bytes were right.

use syn::visit::{self, Visit};

use crate::sources::{Source, line, of_crate};

/// Words in a name that mean that its value is a secret, or proves knowledge of one.
const SECRET_WORDS: [&str; 7] =
    ["secret", "password", "passphrase", "hmac", "signature", "tag", "authorization"];

/// Methods that return the same value in another form. All others (`len`, `is_some`) only say something about it.
const SAME_VALUE: [&str; 16] = [
    "as_bytes",
    "as_deref",
    "as_ref",
    "as_slice",
    "as_str",
    "borrow",
    "bytes",
    "clone",
    "copied",
    "deref",
    "into_bytes",
    "reveal",
    "to_bytes",
    "to_owned",
    "to_string",
    "trim",
];

#[test]
fn secrets_are_compared_in_constant_time() {
    let found = of_crate(compared_secrets);
    assert!(
        found.is_empty(),
        "compare with aws_lc_rs::constant_time::verify_slices_are_equal:\n{}",
        found.join("\n")
    );
}

#[test]
fn types_that_hold_a_secret_derive_no_comparison() {
    let found = of_crate(derived_comparisons);
    assert!(found.is_empty(), "`==` of these compares secrets byte by byte:\n{}", found.join("\n"));
}

fn compared_secrets(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for file in sources {
        let mut comparisons = Comparisons(Vec::new());
        comparisons.visit_file(&file.product);
        found.extend(comparisons.0.into_iter().map(|(line, name)| format!("{}:{line}: {name}", file.path)));
    }
    found
}

struct Comparisons(Vec<(usize, String)>);

impl Comparisons {
    fn operand(&mut self, expression: &syn::Expr) {
        if let Some(name) = value_name(expression).filter(|name| is_secret(name)) {
            self.0.push((line(expression), name));
        }
    }
}

impl<'ast> Visit<'ast> for Comparisons {
    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        if matches!(binary.op, syn::BinOp::Eq(_) | syn::BinOp::Ne(_)) {
            self.operand(&binary.left);
            self.operand(&binary.right);
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let compares = ["eq", "ne", "cmp", "eq_ignore_ascii_case", "contains", "starts_with", "ends_with"];
        if compares.iter().any(|name| call.method == name) {
            self.operand(&call.receiver);
            call.args.iter().for_each(|argument| self.operand(argument));
        }
        visit::visit_expr_method_call(self, call);
    }
}

/// The last name of an expression for a value: `&self.old.secret.as_bytes()[..4]` gives `secret`.
fn value_name(expression: &syn::Expr) -> Option<String> {
    match expression {
        syn::Expr::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
        syn::Expr::Field(field) => match &field.member {
            syn::Member::Named(name) => Some(name.to_string()),
            syn::Member::Unnamed(_) => value_name(&field.base),
        },
        syn::Expr::Reference(it) => value_name(&it.expr),
        syn::Expr::Unary(it) if matches!(it.op, syn::UnOp::Deref(_)) => value_name(&it.expr),
        syn::Expr::Paren(it) => value_name(&it.expr),
        syn::Expr::Try(it) => value_name(&it.expr),
        syn::Expr::Index(it) => value_name(&it.expr),
        syn::Expr::Call(it) if it.args.len() == 1 => it.args.first().and_then(value_name),
        syn::Expr::MethodCall(it) if SAME_VALUE.iter().any(|name| it.method == name) => {
            value_name(&it.receiver)
        }
        _ => None,
    }
}

fn is_secret(name: &str) -> bool {
    // A constant is a name or a limit: `AUTHORIZATION`, `LONGEST_SECRET`.
    let is_constant = !name.chars().any(char::is_lowercase);
    !is_constant && name.split('_').any(|word| SECRET_WORDS.contains(&word))
}

/// Types named after a secret that contain its text or bytes and derive `PartialEq`.
fn derived_comparisons(sources: &[Source]) -> Vec<String> {
    struct Types(Vec<(usize, String)>);
    impl<'ast> Visit<'ast> for Types {
        fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
            let is_of_secrets = item.ident.to_string().contains("Secret");
            let holds = item
                .fields
                .iter()
                .any(|field| is_of_secrets && mentions(&field.ty, &["Zeroizing", "u8", "String", "str"]));
            if holds && derives(&item.attrs, "PartialEq") {
                self.0.push((line(&item.ident), item.ident.to_string()));
            }
        }
    }
    let mut found = Vec::new();
    for file in sources {
        let mut types = Types(Vec::new());
        types.visit_file(&file.product);
        found.extend(types.0.into_iter().map(|(line, name)| format!("{}:{line}: {name}", file.path)));
    }
    found
}

fn mentions(kind: &syn::Type, names: &[&str]) -> bool {
    struct Names<'n>(&'n [&'n str], bool);
    impl<'ast> Visit<'ast> for Names<'_> {
        fn visit_ident(&mut self, ident: &'ast syn::Ident) {
            self.1 |= self.0.iter().any(|name| ident == name);
        }
    }
    let mut found = Names(names, false);
    found.visit_type(kind);
    found.1
}

fn derives(attributes: &[syn::Attribute], name: &str) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("derive")).any(|attribute| {
        attribute
            .parse_args_with(syn::punctuated::Punctuated::<syn::Path, syn::Token![,]>::parse_terminated)
            .is_ok_and(|traits| traits.iter().any(|it| it.is_ident(name)))
    })
}

#[test]
fn the_rule_of_secrets_sees_what_it_looks_for() {
    let bad = "fn f() { a.secret == b; *x != token.old_secret.as_bytes()[..4]; (p.password) == Some(q);\n\
               expected.eq(&signature); client_secret.starts_with(y); digest(secret) == it.hash }\n\
               #[derive(Clone, PartialEq)]\nstruct OldSecret { hash: [u8; 32] }\n\
               #[derive(PartialEq)]\nstruct SecretText(Zeroizing<Vec<u8>>);\n";
    let lines: Vec<String> = compared_secrets(&[Source::parsed("src/a.rs", bad)]);
    let names = ["secret", "old_secret", "password", "signature", "client_secret", "secret"];
    let places = ["1", "1", "1", "2", "2", "2"];
    let expected: Vec<String> =
        places.iter().zip(names).map(|(place, name)| format!("src/a.rs:{place}: {name}")).collect();
    assert_eq!(lines, expected);
    assert_eq!(
        derived_comparisons(&[Source::parsed("src/a.rs", bad)]),
        ["src/a.rs:4: OldSecret", "src/a.rs:6: SecretText"]
    );
    let good = "fn f() { secret.len() == 3; name == AUTHORIZATION; verify(&secret, &b); secret.is_empty() }\n\
                #[derive(Clone)]\nstruct OldSecret { hash: [u8; 32] }\n\
                #[derive(PartialEq)]\nstruct ShortSecret { length: usize }\n\
                #[cfg(test)]\nmod tests { fn f() { secret == b } }\n";
    assert_eq!(compared_secrets(&[Source::parsed("src/a.rs", good)]), [""; 0]);
    assert_eq!(derived_comparisons(&[Source::parsed("src/a.rs", good)]), [""; 0]);
}
