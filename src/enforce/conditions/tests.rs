//! Tables of conditions and values, and sets of conditions that span several words.

use serde_json::{Value, json};

use super::table::{ConditionSet, ConditionTable, TokenCondition};
use super::*;
use crate::enforce::testing::{ISSUER, rules};

fn payload(claims: Value) -> Map<String, Value> {
    claims.as_object().expect("an object").clone()
}

fn text(text: &str) -> ClaimValue {
    ClaimValue::Text(text.to_owned())
}

fn number(number: impl Into<Number>) -> Number {
    number.into()
}

fn on_claim(tests: Vec<ClaimTest>) -> ClaimCondition {
    ClaimCondition { claim: ClaimName::Member("c".to_owned()), tests }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn a_test_compares_one_type_and_fails_on_every_other() {
    use ClaimTest::{AtLeast, AtMost, Equals, Exists, In, Prefix};
    let glob = |pattern| ClaimTest::Glob(Glob::new(pattern).unwrap());
    let others = [json!({"c": "123"}), json!([])];
    for (test, passes, fails) in [
        (
            Equals(text("123")),
            vec![json!("123"), json!(["a", "123"])],
            vec![json!(123), json!("1234"), json!("12")],
        ),
        (
            Equals(ClaimValue::Number(number(123))),
            vec![json!(123), json!(123.0), json!([5, 123])],
            vec![json!("123"), json!(124), json!(123.5)],
        ),
        (
            Equals(ClaimValue::Number(number(9_007_199_254_740_993_u64))),
            vec![json!(9_007_199_254_740_993_u64)],
            vec![json!(9_007_199_254_740_992_u64)],
        ),
        (
            Equals(ClaimValue::Flag(true)),
            vec![json!(true), json!([false, true])],
            vec![json!(false), json!("true"), json!(1)],
        ),
        (Equals(ClaimValue::Flag(false)), vec![json!(false)], vec![json!(true), json!(0), json!("false")]),
        (
            In(vec![text("a"), ClaimValue::Number(number(2))]),
            vec![json!("a"), json!(2), json!(["b", 2])],
            vec![json!("A"), json!("2")],
        ),
        (
            Prefix("repo:org/".to_owned()),
            vec![json!("repo:org/"), json!("repo:org/x")],
            vec![json!("repo:org"), json!("Repo:org/x"), json!(" repo:org/x"), json!(1)],
        ),
        (
            glob("read_*"),
            vec![json!("read_"), json!("read_file"), json!(["w", "read_x"])],
            vec![json!("write_x"), json!("read_a/b"), json!("xread_a"), json!(true)],
        ),
        (
            AtLeast(number(3)),
            vec![json!(3), json!(3.5), json!([1, 4])],
            vec![json!(2), json!(2.9), json!("3")],
        ),
        (
            AtMost(number(3)),
            vec![json!(3), json!(2.9), json!(-1), json!([9, 3])],
            vec![json!(4), json!(3.1), json!("3")],
        ),
        (Exists(true), vec![json!(""), json!(false), json!(0), json!([]), json!({})], vec![]),
    ] {
        let condition = on_claim(vec![test.clone()]);
        for value in passes {
            assert!(condition.is_met(&payload(json!({"c": value}))), "{condition} by {value}");
        }
        let exists = test == Exists(true);
        for value in fails.iter().chain(others.iter().filter(|_| !exists)) {
            assert!(!condition.is_met(&payload(json!({"c": value}))), "{condition} by {value}");
        }
        for absent in [json!({}), json!({"c": null}), json!({"C": "123"})] {
            assert!(!condition.is_met(&payload(absent)), "{condition} by an absent claim");
        }
    }
}

#[test]
fn an_absent_claim_meets_only_the_demand_that_it_is_absent() {
    let absent = on_claim(vec![ClaimTest::Exists(false)]);
    for (claims, met) in [
        (json!({}), true),
        (json!({"c": null}), true),
        (json!({"c": "x"}), false),
        (json!({"c": []}), false),
        (json!({"c": ["x"]}), false),
        (json!({"c": false}), false),
    ] {
        assert_eq!(absent.is_met(&payload(claims.clone())), met, "{claims}");
    }
}

#[test]
fn one_member_must_pass_all_tests_of_a_condition() {
    let between = on_claim(vec![ClaimTest::AtLeast(number(3)), ClaimTest::AtMost(number(5))]);
    for (value, met) in [
        (json!(3), true),
        (json!(5), true),
        (json!(2), false),
        (json!(6), false),
        (json!([2, 6]), false),
        (json!([2, 4]), true),
    ] {
        assert_eq!(between.is_met(&payload(json!({"c": value}))), met, "{value}");
    }
}

#[test]
fn a_pointer_reaches_into_objects() {
    let tokens = ["kubernetes.io", "namespace"].map(str::to_owned).to_vec();
    let condition = ClaimCondition {
        claim: ClaimName::Pointer(tokens),
        tests: vec![ClaimTest::In(vec![text("prod"), text("stage")])],
    };
    for (claims, met) in [
        (json!({"kubernetes.io": {"namespace": "prod"}}), true),
        (json!({"kubernetes.io": {"namespace": "dev"}}), false),
        (json!({"kubernetes.io": "prod"}), false),
        (json!({"/kubernetes.io/namespace": "prod"}), false),
    ] {
        assert_eq!(condition.is_met(&payload(claims.clone())), met, "{claims}");
    }
}

#[test]
fn a_star_stays_within_its_segment() {
    for (pattern, matches, others) in [
        ("a", vec!["a"], vec!["", "aa", "A", "a/", "*"]),
        ("*", vec!["", "a", "a.b-c"], vec!["a/b", "a:", "/"]),
        ("a*", vec!["a", "ab"], vec!["ba", "a/b", "a:b"]),
        ("*a", vec!["a", "ba", "aa"], vec!["ab", "b/a"]),
        ("a*b*c", vec!["abc", "a1b2c", "abbc", "abcbc"], vec!["ac", "acb", "ab/c", "abcd"]),
        ("a*a", vec!["aa", "aba"], vec!["a", "ab"]),
        (
            "repo:org/*:ref:*",
            vec!["repo:org/x:ref:", "repo:org/x:ref:y"],
            vec!["repo:org-evil/x:ref:y", "repo:org/x/y:ref:z", "repo:org/x:ref:a:b", "repo:org/x:ref"],
        ),
        ("a/*", vec!["a/", "a/b"], vec!["a", "a/b/", "a/b/c", "a:b"]),
        ("a/*/c", vec!["a/b/c", "a//c"], vec!["a/c", "a/b/d", "a/b:c", "a/b/x/c"]),
        ("*/", vec!["/", "a/"], vec!["a", "a:", "a//"]),
        ("é*", vec!["é", "éé"], vec!["e", "è"]),
    ] {
        let glob = Glob::new(pattern).unwrap();
        assert_eq!(glob.pattern(), pattern);
        for text in matches {
            assert!(glob.matches(text), "{pattern:?} is the shape of {text:?}");
        }
        for text in others {
            assert!(!glob.matches(text), "{pattern:?} is not the shape of {text:?}");
        }
    }
    for pattern in ["", "**", "a/**", "a**b"] {
        assert!(Glob::new(pattern).is_err(), "{pattern:?}");
    }
}

#[test]
fn a_set_holds_exactly_the_conditions_that_a_token_meets() {
    let condition = |place: usize| {
        TokenCondition::Claim(ClaimCondition {
            claim: ClaimName::Member(format!("c{place}")),
            tests: vec![ClaimTest::Exists(true)],
        })
    };
    let mut table = ConditionTable::default();
    let needed: Vec<_> = (0..130).map(|place| table.set([condition(place)])).collect();
    assert_eq!(table.set([condition(7)]), needed[7], "each is in the table once");
    assert_eq!(table.set([]), ConditionSet::default());
    let rules = rules(ISSUER, &[]);
    for carried in [0, 1, 63, 64, 65, 127, 128, 129] {
        let met = table.met_by(&rules, &payload(json!({format!("c{carried}"): 1})));
        for (place, needed) in needed.iter().enumerate() {
            assert_eq!(met.holds(needed), place == carried, "c{place} by c{carried}");
        }
        assert!(met.holds(&ConditionSet::default()));
    }
    let both = table.set([condition(1), condition(64)]);
    for (claims, met) in [
        (json!({"c1": 1, "c64": 1}), true),
        (json!({"c1": 1}), false),
        (json!({"c64": 1}), false),
        (json!({}), false),
    ] {
        assert_eq!(table.met_by(&rules, &payload(claims.clone())).holds(&both), met, "{claims}");
    }
    assert_eq!(table.set([condition(63)]).size(), 0);
    assert_eq!(table.set([condition(64)]).size(), 8);
}

#[test]
fn issuers_and_audiences_are_conditions_as_well() {
    let mut table = ConditionTable::default();
    let issuer = |name: &str| TokenCondition::Issuer(vec!["https://a.example/".into(), name.into()]);
    let audience =
        |name: &str| TokenCondition::Audience(vec!["https://a.example".to_owned(), name.to_owned()]);
    let (ours, others) = (table.set([issuer(ISSUER)]), table.set([issuer("https://idp.example")]));
    let (one, another) = (table.set([audience("api")]), table.set([audience("API")]));
    let rules = rules(ISSUER, &[]);
    for (aud, names_it) in
        [(json!("api"), true), (json!(["x", "api"]), true), (json!("x"), false), (json!(7), false)]
    {
        let met = table.met_by(&rules, &payload(json!({"aud": aud})));
        assert!(met.holds(&ours) && !met.holds(&others), "issuers are compared exactly");
        assert_eq!(met.holds(&one), names_it, "{aud}");
        assert!(!met.holds(&another), "{aud}");
    }
}

#[test]
fn conditions_are_shown_as_they_are_read() {
    let all = on_claim(vec![
        ClaimTest::Exists(true),
        ClaimTest::Prefix("a".to_owned()),
        ClaimTest::Glob(Glob::new("a*").unwrap()),
        ClaimTest::In(vec![text("ab"), ClaimValue::Flag(true), ClaimValue::Number(number(1))]),
        ClaimTest::Equals(text("ab")),
        ClaimTest::AtLeast(number(1)),
        ClaimTest::AtMost(number(2)),
    ]);
    let shown =
        r#"c present and begins with "a" and like "a*" and in ["ab", true, 1] and = "ab" and ≥ 1 and ≤ 2"#;
    assert_eq!(all.to_string(), shown);
    assert_eq!(on_claim(vec![ClaimTest::Exists(false)]).to_string(), "c absent");
}
