//! Compares the description of the admin API with its router: the same routes, methods and permissions.

use std::collections::BTreeSet;

use serde_json::Value;
use syn::visit::{self, Visit};

use crate::sources::{Source, of_crate, root};

/// The calls of an API: `GET /v1/users: authority`.
type Calls = BTreeSet<String>;

const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

#[test]
fn the_description_of_the_admin_api_has_its_routes_and_their_permissions() {
    let text = std::fs::read_to_string(root().join("src/admin/api/openapi.json")).unwrap();
    let (described, routed) = (described(&serde_json::from_str(&text).unwrap()), of_crate(routed));
    assert!(routed.len() > 20, "{routed:?}");
    let undescribed: Vec<_> = routed.difference(&described).collect();
    let unrouted: Vec<_> = described.difference(&routed).collect();
    assert!(
        undescribed.is_empty() && unrouted.is_empty(),
        "not in the document: {undescribed:?}; only there: {unrouted:?}"
    );
}

fn call(method: &str, path: &str, permissions: &[String]) -> String {
    format!("{} {path}: {}", method.to_uppercase(), permissions.join(" or "))
}

fn described(document: &Value) -> Calls {
    let mut calls = Calls::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let schemes =
                operation["security"].as_array().unwrap_or_else(|| panic!("{method} {path}: no security"));
            let roles = schemes.iter().flat_map(|scheme| scheme["adminToken"].as_array().unwrap());
            let roles: Vec<String> = roles.map(|role| role.as_str().unwrap().to_owned()).collect();
            calls.insert(call(method, path, &roles));
        }
    }
    calls
}

/// The routes of each file of the API, with the permissions that its router requires.
fn routed(sources: &[Source]) -> Calls {
    let folder: Vec<&Source> =
        sources.iter().filter(|file| file.path.starts_with("src/admin/api/")).collect();
    let mut groups = Groups::default();
    folder
        .iter()
        .filter(|file| file.path.ends_with("/mod.rs"))
        .for_each(|file| groups.visit_file(&file.product));
    let mut calls = Calls::new();
    for (module, permissions) in groups.0 {
        let path = format!("src/admin/api/{module}.rs");
        let file = folder.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("no {path}"));
        let mut routes = Routes(Vec::new());
        routes.visit_file(&file.product);
        calls.extend(routes.0.iter().map(|(method, path)| call(method, path, &permissions)));
    }
    calls
}

/// The arguments of `.merge(…)`: the module whose `routes()` are merged, and the permissions required for them.
#[derive(Default)]
struct Groups(Vec<(String, Vec<String>)>);

impl<'ast> Visit<'ast> for Groups {
    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "merge" {
            let mut found = Paths(Vec::new());
            call.args.iter().for_each(|argument| found.visit_expr(argument));
            let last =
                |path: &[String], at: usize| path.len().checked_sub(at).and_then(|at| path.get(at)).cloned();
            let is_of = |path: &&Vec<String>, name: &str| last(path, 2).is_some_and(|module| module == name);
            let permissions = found.0.iter().filter(|path| is_of(path, "Permission"));
            let permissions =
                permissions.filter_map(|path| last(path, 1)).map(|word| word.to_lowercase()).collect();
            let routes = found.0.iter().find(|path| last(path, 1).is_some_and(|name| name == "routes"));
            self.0.extend(routes.and_then(|path| last(path, 2)).map(|module| (module, permissions)));
        }
        visit::visit_expr_method_call(self, call);
    }
}

/// Every path of names in an expression.
struct Paths(Vec<Vec<String>>);

impl<'ast> Visit<'ast> for Paths {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

/// The methods and paths of `.route("/path", get(a).post(b))`.
struct Routes(Vec<(String, String)>);

impl<'ast> Visit<'ast> for Routes {
    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let mut arguments = call.args.iter();
        if call.method == "route"
            && let Some(syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. })) = arguments.next()
        {
            let mut methods = Methods(Vec::new());
            arguments.for_each(|handlers| methods.visit_expr(handlers));
            self.0.extend(methods.0.into_iter().map(|method| (method, path.value())));
        }
        visit::visit_expr_method_call(self, call);
    }
}

struct Methods(Vec<String>);

impl<'ast> Visit<'ast> for Methods {
    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.0.extend(METHODS.iter().filter(|method| call.method == **method).map(ToString::to_string));
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(path) = &*call.func {
            self.0.extend(
                METHODS.iter().filter(|method| path.path.is_ident(**method)).map(ToString::to_string),
            );
        }
        visit::visit_expr_call(self, call);
    }
}

#[test]
fn the_comparison_of_routes_sees_what_it_looks_for() {
    let router = "fn f() { Router::new().merge(permitted(Permission::Config, a::routes()))\
                  .merge(either(Permission::Signals, super::Permission::Events, b::routes())).merge(c::routes()) }";
    let a = "fn routes() { Router::new().route(\"/a\", get(x).post(y)).route(\"/a/{id}\", delete(z)) }";
    let sources = [
        Source::parsed("src/admin/api/mod.rs", router),
        Source::parsed("src/admin/api/a.rs", a),
        Source::parsed("src/admin/api/b.rs", "fn routes() { Router::new().route(\"/b\", put(x)) }"),
        Source::parsed("src/admin/api/c.rs", "fn routes() { Router::new().route(\"/c\", patch(x)) }"),
    ];
    let expected = [
        "DELETE /a/{id}: config",
        "GET /a: config",
        "PATCH /c: ",
        "POST /a: config",
        "PUT /b: signals or events",
    ];
    assert_eq!(routed(&sources).iter().collect::<Vec<_>>(), expected);
    let document = serde_json::json!({ "paths": {
        "/b": { "put": { "security": [{ "adminToken": ["signals"] }, { "adminToken": ["events"] }] } },
        "/c": { "patch": { "security": [{ "adminToken": [] }] } },
    } });
    assert_eq!(
        described(&document).iter().collect::<Vec<_>>(),
        expected[2..].iter().filter(|call| !call.starts_with("POST")).collect::<Vec<_>>()
    );
}
