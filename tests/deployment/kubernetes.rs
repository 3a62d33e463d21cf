//! `config/kubernetes`: the sidecar component, and the example that uses it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use testkit::documents::{block, commands};
use testkit::eventually;
use testkit::pki::Authority;
use testkit::ports::ClaimedPort;
use testkit::tools::{Running, run};

use crate::pods::{self, are_accepted, open_ports, resource};
use crate::tooling::{file, says, tool, write, yaml};

fn rendered(folder: &Path) -> String {
    says("kubectl", &["kustomize", folder.to_str().unwrap()])
}

fn example() -> Vec<Value> {
    yaml(&rendered(&file("config/kubernetes/example")))
}

#[test]
fn the_example_is_accepted_by_every_supported_kubernetes() {
    are_accepted(&rendered(&file("config/kubernetes/example")));
}

#[test]
fn the_pods_of_the_example_have_no_more_rights_than_they_need() {
    let all = example();
    let (api, redis) =
        (resource(&all, "Deployment", "deals-api"), resource(&all, "StatefulSet", "portcullis-redis"));
    pods::is_hardened(api);
    pods::is_probed(api);
    assert_eq!(pods::gate(api)["restartPolicy"], "Always");
    assert_eq!(resource(&all, "ServiceAccount", "deals-api")["automountServiceAccountToken"], false);
    let redis = &redis["spec"]["template"]["spec"];
    assert_eq!(redis["automountServiceAccountToken"], false);
    assert_eq!(redis["securityContext"]["runAsNonRoot"], true);
    assert_eq!(redis["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(
        resource(&all, "Namespace", "deals")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"],
        "restricted"
    );
}

#[test]
fn the_configuration_of_the_example_is_good_and_its_pods_have_time_to_end() {
    let all = example();
    let api = resource(&all, "Deployment", "deals-api");
    let configuration = all.iter().find(|it| it["kind"] == "ConfigMap").unwrap();
    let configuration = configuration["data"]["portcullis.toml"].as_str().unwrap();
    pods::configuration_is_good(api, configuration);
    pods::has_time_to_end(api, configuration);
}

#[test]
fn nobody_reaches_the_api_of_the_example_past_the_gate() {
    let all = example();
    let policy = resource(&all, "NetworkPolicy", "portcullis-sidecar");
    assert_eq!(open_ports(policy), [(json!(8443), false), (json!(9464), true)]);
    let api = resource(&all, "Deployment", "deals-api");
    let labels = &api["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["portcullis"], policy["spec"]["podSelector"]["matchLabels"]["portcullis"]);
    let command = &api["spec"]["template"]["spec"]["containers"][0]["command"];
    assert!(command.as_array().unwrap().contains(&json!("127.0.0.1")), "{command}");
    let ports = resource(&all, "Service", "deals-api")["spec"]["ports"].as_array().unwrap();
    let ports: Vec<_> = ports.iter().map(|port| (&port["port"], &port["targetPort"])).collect();
    assert_eq!(ports, [(&json!(443), &json!(8443))]);
    let redis = resource(&all, "NetworkPolicy", "portcullis-redis");
    assert_eq!(open_ports(redis), [(json!("redis"), true)]);
}

/// Runs docs/deployment.md: newTag: 0.1.0
#[test]
fn the_component_adds_the_gate_to_labelled_workloads_of_others_and_leaves_the_rest_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let overlay = folder.path().join("shop");
    let labelled = |label: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": format!("shop{label}"), "labels": {"portcullis": label}},
            "spec": {
                "selector": {"matchLabels": {"app": "shop"}},
                "template": {
                    "metadata": {"labels": {"app": "shop"}},
                    "spec": {
                        "initContainers": [{"name": "migrate", "image": "shop:1", "args": ["migrate"]}],
                        "containers": [{"name": "shop", "image": "shop:1", "ports": [{"containerPort": 80}],
                            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
                        "volumes": [{"name": "data", "emptyDir": {}}],
                        "securityContext": {"fsGroup": 1000},
                    },
                },
            },
        })
    };
    let (with, without) = (labelled("sidecar"), labelled("none"));
    write(&overlay.join("shop.yaml"), format!("{with}\n---\n{without}\n"));
    write(&overlay.join("portcullis.toml"), "[server]\n");
    for component in ["sidecar", "monitoring"] {
        for entry in std::fs::read_dir(file(&format!("config/kubernetes/{component}"))).unwrap() {
            let path = entry.unwrap().path();
            write(
                &folder.path().join(component).join(path.file_name().unwrap()),
                std::fs::read(&path).unwrap(),
            );
        }
    }
    let own = format!("resources: [shop.yaml]\n{}", block("docs/deployment.md", "newTag: 0.1.0"));
    write(&overlay.join("kustomization.yaml"), own);
    let printed = rendered(&overlay);
    are_accepted(&printed);
    let all = yaml(&printed);
    assert_eq!(resource(&all, "Deployment", "shopnone"), &without);
    let shop = resource(&all, "Deployment", "shopsidecar");
    let monitor = &resource(&all, "PodMonitor", "portcullis")["spec"];
    assert_eq!(
        shop["spec"]["template"]["metadata"]["labels"]["portcullis"],
        monitor["selector"]["matchLabels"]["portcullis"]
    );
    assert_eq!(monitor["podMetricsEndpoints"][0]["port"], pods::gate(shop)["ports"][1]["name"]);
    assert_eq!(pods::gate(shop)["image"], "registry.example.com/portcullis:0.1.0");
    let (before, after) = (&with["spec"]["template"]["spec"], &shop["spec"]["template"]["spec"]);
    assert_eq!(
        (&after["containers"], &after["securityContext"]),
        (&before["containers"], &before["securityContext"])
    );
    let has = |list: &str, item: &Value| after[list].as_array().unwrap().contains(item);
    assert!(
        has("initContainers", &before["initContainers"][0]) && has("volumes", &before["volumes"][0]),
        "{after}"
    );
    let configured =
        all.iter().find(|it| it["kind"] == "ConfigMap").unwrap()["metadata"]["name"].as_str().unwrap();
    assert!(after.to_string().contains(configured), "{configured} in {after}");
}

/// Runs docs/deployment.md: kubectl apply -k
#[test]
fn the_commands_of_the_docs_make_the_secrets_that_the_example_names() {
    let folder = tempfile::tempdir().unwrap();
    let server = Authority::new().server(&["localhost"]);
    for (name, content) in [("server.pem", &server.chain), ("server.key", &server.key)] {
        write(&folder.path().join(name), content);
        write(&folder.path().join(name.replace("server", "redis")), content);
    }
    write(&folder.path().join("redis-password"), "secret");
    write(&folder.path().join("redis-ca.crt"), Authority::new().certificate_pem());
    let mut made = Vec::new();
    let all = commands(&block("docs/deployment.md", "kubectl apply -k"));
    let (apply, creating) = all.split_last().unwrap();
    for command in creating {
        let path =
            format!("{}:{}", tool("kubectl").parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("bash");
        shell
            .args(["-c", &format!("{command} --dry-run=client -o yaml")])
            .env("PATH", path)
            .current_dir(folder.path());
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        made.extend(yaml(&String::from_utf8(output.stdout).unwrap()));
    }
    assert_eq!(apply, "kubectl apply -k config/kubernetes/example");
    let rendered = rendered(&file("config/kubernetes/example"));
    assert_eq!(made.len(), 4);
    for secret in made.iter().filter(|it| it["kind"] == "Secret") {
        let name = secret["metadata"]["name"].as_str().unwrap();
        assert!(rendered.contains(&format!("ame: {name}\n")), "{name}");
        assert_eq!(secret["metadata"]["namespace"], "deals");
    }
    let keys =
        made.iter().find(|it| it["metadata"]["name"] == "portcullis").unwrap()["data"].as_object().unwrap();
    for (key, _) in keys {
        assert!(rendered.contains(&format!("key: {key}\n")), "{key}");
    }
}

#[test]
fn the_redis_of_the_example_keeps_everything_for_clients_with_the_password() {
    let folder = tempfile::tempdir().unwrap();
    let server = Authority::new().server(&["localhost"]);
    write(&folder.path().join("tls/tls.crt"), &server.chain);
    write(&folder.path().join("tls/tls.key"), &server.key);
    write(&folder.path().join("secrets/redis-password"), "correct-horse\n");
    let port = ClaimedPort::new();
    let own = |command: &Value| {
        let command = command.as_str().unwrap().replace("/etc/redis", folder.path().to_str().unwrap());
        let command = command.replace("--dir /data", &format!("--dir {}", folder.path().display()));
        command
            .replace("--tls-port 6379", &format!("--tls-port {}", port.number()))
            .replace("redis-cli", &format!("redis-cli -p {}", port.number()))
    };
    let all = example();
    let redis =
        &resource(&all, "StatefulSet", "portcullis-redis")["spec"]["template"]["spec"]["containers"][0];
    let shell = |command: &Value| {
        let words = command.as_array().unwrap();
        let mut shell = Command::new(words[0].as_str().unwrap());
        shell.arg(words[1].as_str().unwrap()).arg(own(&words[2]));
        shell
    };
    let _running = Running::start(&mut shell(&redis["command"]));
    let probe = &redis["readinessProbe"]["exec"]["command"];
    eventually("Redis is ready", || shell(probe).output().unwrap().status.success().then_some(()));
    let number = port.number().to_string();
    let ask = |words: &[&str]| {
        let options = ["-p", &number, "--tls", "--insecure", "--no-auth-warning", "-a", "correct-horse"];
        run("redis-cli", &[&options[..], words].concat())
    };
    assert_eq!(ask(&["config", "get", "maxmemory-policy"]), "maxmemory-policy\nnoeviction\n");
    assert_eq!(ask(&["config", "get", "appendfsync"]), "appendfsync\nalways\n");
    assert_eq!(ask(&["config", "get", "appendonly"]), "appendonly\nyes\n");
    let refused = run("redis-cli", &["-p", &number, "--tls", "--insecure", "ping"]);
    assert!(refused.contains("NOAUTH"), "{refused}");
}
