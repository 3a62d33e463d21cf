//! One signed message is one token, however it is written; and one token's proof never counts for another.

use serde_json::json;

use crate::enforce::decide::{Enforcer, Judgement, Proof};
use crate::enforce::denial::Reason;
use crate::enforce::testing::{
    ISSUER, OTHER, SIGNERS, TestRequest, enforcer, header, issuers, payload, route, token, token_of, without,
};
use crate::enforce::token::TokenId;

/// The order of P-256's group, n.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
    0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The other valid signature of the same message: (r, n − s).
fn twin(token: &str) -> String {
    let (input, signature) = token.rsplit_once('.').expect("a signature");
    let mut raw = crate::jose::jws::decode(signature.as_bytes()).expect("base64");
    let mut borrow = 0_i16;
    for i in (0..32).rev() {
        let difference = i16::from(ORDER[i]) - i16::from(raw[32 + i]) - borrow;
        borrow = i16::from(difference < 0);
        raw[32 + i] = u8::try_from(difference.rem_euclid(256)).expect("a byte");
    }
    format!("{input}.{}", crate::enforce::testing::b64(&raw))
}

/// Other characters for the same 64 bytes: the last character carries four unused bits.
fn spare_bits(token: &str) -> Vec<String> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (start, last) = token.split_at(token.len() - 1);
    let value = alphabet.iter().position(|c| last.as_bytes() == [*c]).expect("base64url");
    (1..16).map(|spare| format!("{start}{}", char::from(alphabet[value | spare]))).collect()
}

fn gate() -> Enforcer {
    enforcer(issuers(), vec![route("/{*rest}")])
}

fn judged(gate: &Enforcer, token: &str) -> Judgement {
    TestRequest::new(gate, "/x").token(token).decide()
}

fn id(judgement: &Judgement) -> Option<TokenId> {
    judgement.token.as_ref().map(|token| token.id)
}

#[test]
fn the_twin_signature_is_the_same_token() {
    for claims in [payload(json!({})), without(payload(json!({})), "jti")] {
        let gate = gate();
        let token = token(&claims);
        let twin = twin(&token);
        assert_ne!(token, twin);
        let (one, other) = (judged(&gate, &token), judged(&gate, &twin));
        assert_eq!((one.proof, other.proof), (Proof::Fresh, Proof::Fresh));
        assert!(id(&one).is_some());
        assert_eq!(id(&one), id(&other));
    }
}

#[test]
fn spare_bits_make_no_second_spelling() {
    let gate = gate();
    let token = token(&payload(json!({})));
    assert!(id(&judged(&gate, &token)).is_some());
    for spelling in spare_bits(&token) {
        assert_eq!(
            TestRequest::new(&gate, "/x").token(&spelling).reason(),
            Some(Reason::NotJwt),
            "{spelling}"
        );
    }
}

#[test]
fn a_header_written_anew_is_the_same_token_when_it_has_a_jti() {
    let gate = gate();
    let claims = payload(json!({})).to_string();
    let one = token_of(&SIGNERS.es256, &header(json!({})).to_string(), &claims);
    let other = token_of(&SIGNERS.es256, &format!(" {} ", header(json!({"x": 1}))), &format!("{claims}\n"));
    assert_eq!(id(&judged(&gate, &one)), id(&judged(&gate, &other)));
}

#[test]
fn identity_is_issuer_and_jti_or_the_signing_input() {
    let gate = gate();
    let token_1 = token(&payload(json!({})));
    assert_eq!(id(&judged(&gate, &token_1)), Some(TokenId::of(format!("{ISSUER}\ntoken-1").as_bytes())));
    let of_other =
        token_of(&SIGNERS.other, &header(json!({})).to_string(), &payload(json!({"iss": OTHER})).to_string());
    assert_eq!(id(&judged(&gate, &of_other)), Some(TokenId::of(format!("{OTHER}\ntoken-1").as_bytes())));
    let nameless = token(&without(payload(json!({})), "jti"));
    let (input, _) = nameless.rsplit_once('.').expect("a signature");
    assert_eq!(id(&judged(&gate, &nameless)), Some(TokenId::of(input.as_bytes())));
    let shown = id(&judged(&gate, &token_1)).map(|id| id.to_string());
    assert_eq!(shown.as_deref().map(str::len), Some(12));
}
