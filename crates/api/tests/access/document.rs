//! The OpenAPI document against the routes that answer and the bodies they answer with.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::Value;
use volley_model::Role;

use crate::roles::{Route, routes};
use crate::scene::Scene;

#[tokio::test]
async fn every_documented_route_answers_and_no_other_method_does() {
    let scene = Scene::with_tokens().await;
    let admin = scene.token("ops", Role::Admin).await;
    let routes = routes(&scene).await;
    let known: BTreeSet<(String, String)> =
        routes.iter().map(|route| (route.method.to_string(), route.path.clone())).collect();
    for Route { method, path, .. } in &routes {
        let reply = scene.ask(Some(&admin), method.clone(), path, "").await;
        let no_route = reply.status == StatusCode::NOT_FOUND && reply.detail().contains("no such path");
        assert!(reply.status != StatusCode::METHOD_NOT_ALLOWED && !no_route, "{method} {path}: {reply:?}");
        for other in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            if !known.contains(&(other.to_string(), path.clone())) {
                let reply = scene.ask(Some(&admin), other.clone(), path, "").await;
                assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED, "{other} {path}");
            }
        }
    }
    let nowhere = scene.ask(None, Method::GET, "/v1/nowhere", "").await;
    assert_eq!((nowhere.status, nowhere.detail().contains("openapi.json")), (StatusCode::NOT_FOUND, true));
    let head = scene.ask(Some(&admin), Method::HEAD, "/v1/containers", "").await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    scene.end().await;
}

/// The schema of an object: the one that a reference names, or itself.
fn resolved<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    match schema["$ref"].as_str() {
        Some(reference) => resolved(document, document.pointer(&reference[1..]).expect("a reference leads somewhere")),
        None => schema,
    }
}

/// Every field that is there is described, and every described one is there.
fn check_fields(document: &Value, place: &str, schema: &Value, value: &Value) {
    let schema = resolved(document, schema);
    if let Some(items) = value.as_array() {
        for item in items {
            check_fields(document, place, &schema["items"], item);
        }
        return;
    }
    let (Some(described), Some(there)) = (schema["properties"].as_object(), value.as_object()) else { return };
    let names = |fields: &serde_json::Map<String, Value>| fields.keys().cloned().collect::<BTreeSet<_>>();
    // What a spec says nothing of is left out of its JSON.
    let partly = place.ends_with(".spec") || place.ends_with(".spec.resources");
    let (there_names, described_names) = (names(there), names(described));
    assert!(there_names.is_subset(&described_names), "{place}: {there_names:?}, described {described_names:?}");
    assert!(partly || there_names == described_names, "{place}: {there_names:?}, described {described_names:?}");
    for (name, value) in there {
        check_fields(document, &format!("{place}.{name}"), &described[name], value);
    }
}

#[tokio::test]
async fn answers_have_the_fields_that_the_document_says() {
    let scene = Scene::with_tokens().await;
    let admin = scene.token("ops", Role::Admin).await;
    let document = scene.ask(None, Method::GET, "/v1/openapi.json", "").await.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{}", document["openapi"]);
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    let accepted = scene.submit(&admin, 1).await.json();
    let group = accepted["group"].as_str().expect("an id").to_owned();
    scene.submit(&admin, 2).await;
    let gets = [
        ("/v1/containers", String::new()),
        ("/v1/containers/{id}", format!("/v1/containers/{group}-0")),
        ("/v1/groups/{id}", format!("/v1/groups/{group}")),
        ("/v1/workers", String::new()),
        ("/v1/audit", String::new()),
        ("/v1/stats", String::new()),
        ("/v1/tokens", String::new()),
        ("/v1/tenants", String::new()),
    ];
    for (route, path) in gets {
        let reply = scene.get(&admin, if path.is_empty() { route } else { &path }).await;
        assert_eq!(reply.status, StatusCode::OK, "{route}");
        let schema = &document["paths"][route]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{route} has no schema");
        check_fields(&document, route, schema, &reply.json());
    }
    let problem = scene.get(&admin, "/v1/groups/zzz").await.json();
    let schema = &document["paths"]["/v1/groups/{id}"]["get"]["responses"]["404"]["content"];
    check_fields(
        &document,
        "problem",
        schema.as_object().expect("one kind").values().next().unwrap().get("schema").expect("a schema"),
        &problem,
    );
    // The description of a spec, written by hand, has the fields that are written and read.
    let mut spec = volley_model::Spec::of_command("true", &["x"]);
    (spec.working_dir, spec.image, spec.affinity) = (Some("/".into()), Some("i".into()), Some("a".into()));
    spec.max_wait = Some(volley_model::Millis(1));
    (spec.sandbox.user, spec.sandbox.read_only) = (Some("1".into()), true);
    spec.resources.gpu = "H100:2".parse().ok();
    let written = volley_wire::json::spec_to(&spec);
    check_fields(&document, "Spec", &document["components"]["schemas"]["Spec"], &written);
    scene.end().await;
}
