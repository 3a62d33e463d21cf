//! Objects that have one reading, and texts that have two or none.

use super::*;

#[test]
fn reads_an_object() {
    let text = br#" {"a":[1,-2,3.5,true,null,{"b":"\u00e9"}],"":{}} "#;
    let object = object(text).expect("an object");
    assert_eq!(Value::Object(object), serde_json::from_slice::<Value>(text).expect("JSON"));
}

#[test]
fn refuses_two_readings_and_none() {
    let deep = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let (shallow_enough, too_deep, far_too_deep) = (deep(32), deep(33), deep(5000));
    let wide = format!("{{\"a\":{}{}}}", "[".repeat(33), "]".repeat(33));
    assert!(object(shallow_enough.as_bytes()).is_ok());
    let table: &[(&[u8], JsonError)] = &[
        (br#"{"a":1,"a":1}"#, JsonError::Ambiguous),
        (br#"{"a":1,"\u0061":2}"#, JsonError::Ambiguous),
        (br#"{"x":{"a":1,"a":2}}"#, JsonError::Ambiguous),
        (br#"{"x":[{"a":1,"b":2,"a":3}]}"#, JsonError::Ambiguous),
        (too_deep.as_bytes(), JsonError::Ambiguous),
        (far_too_deep.as_bytes(), JsonError::Ambiguous),
        (wide.as_bytes(), JsonError::Ambiguous),
        (b"", JsonError::NoObject),
        (b"[]", JsonError::NoObject),
        (b"null", JsonError::NoObject),
        (br#""{}""#, JsonError::NoObject),
        (b"{}{}", JsonError::NoObject),
        (b"{} x", JsonError::NoObject),
        (b"{\"a\":1,}", JsonError::NoObject),
        (b"{'a':1}", JsonError::NoObject),
        (b"{\"a\":NaN}", JsonError::NoObject),
        (b"{\"a\":01}", JsonError::NoObject),
        (b"{\"a\":1e999}", JsonError::NoObject),
        (b"{\"a\":\"\xff\"}", JsonError::NoObject),
        (br#"{"a":"\ud800"}"#, JsonError::NoObject),
        (b"{\"a\":\"\n\"}", JsonError::NoObject),
        (b"\xef\xbb\xbf{}", JsonError::NoObject),
        (b"{\"a\":1}\0", JsonError::NoObject),
        (b"{/**/}", JsonError::NoObject),
    ];
    for (text, error) in table {
        assert_eq!(object(text), Err(*error), "{}", String::from_utf8_lossy(text));
    }
}
