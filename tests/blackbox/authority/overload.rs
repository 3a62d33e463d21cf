//! Limits on requests in flight, as they apply to the authority's own paths.

use testkit::raw_upstream::RawUpstream;

use super::stage::Stage;

#[test]
fn the_token_endpoint_counts_for_the_limit_of_the_gate_and_not_for_that_of_an_upstream() {
    for (limits, answered) in [("requests = 1", 503), ("requests = 0", 200)] {
        let silent = RawUpstream::scripted(|exchange| exchange.wait_for_close());
        let stage = Stage::planned(|plan| {
            plan.toml(&format!(
                "[server.limits]\n{limits}\n[[upstreams]]\nname = \"silent\"\nurl = \"{}\"\nmax_requests = 1\n\
                 [[routes]]\npath = \"/silent\"\nupstream = \"silent\"\nanonymous = true\n",
                silent.url()
            ))
        });
        let robot = stage.robot();
        let mut holder = stage.gate.connect();
        holder.send(stage.gate.get("/silent").bytes()).unwrap();
        silent.wait_for(1);
        assert_eq!(stage.gate.get("/silent").send().status(), 503);
        let answer = stage.post("/oauth/token", &robot.form(""));
        assert_eq!(answer.status(), answered, "{limits}: {}", answer.text());
        assert_eq!(stage.gate.get("/.well-known/jwks.json").send().status(), answered, "{limits}");
        if answered == 503 {
            assert_eq!(answer.field("retry-after"), Some("1"));
            assert_eq!(answer.json()["error"], "temporarily_unavailable");
        }
        drop(holder);
        testkit::eventually("the place is free again", || {
            (stage.post("/oauth/token", &robot.form("")).status() == 200).then_some(())
        });
    }
}
