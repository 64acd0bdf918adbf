//! The embedded store against real files: what was acknowledged is there after a restart.

use std::collections::BTreeMap;

use volley_ledger::{Answer, ApplyTenant, Audit, Claim, CreateToken, OpenSession, Query, RevokeToken, Submit};
use volley_model::{
    ClaimNumber, FleetVersion, GroupId, Rate, Role, SecretHash, SessionId, Spec, Submission, SubmissionBody, Tenant,
    TenantName, TokenId,
};
use volley_store::embedded::{EmbeddedOptions, EmbeddedStore, OpenError};
use volley_store::{Store, StoreExt};

fn submission(count: u64) -> Submission {
    let body = SubmissionBody::Count { spec: Spec::of_command("true", &[]), count };
    body.check(TenantName::default(), Some("key".to_owned()), None, BTreeMap::new()).unwrap()
}

async fn audit(store: &EmbeddedStore) -> Audit {
    match store.read(Query::Audit).await.unwrap() {
        Answer::Audit(audit) => *audit,
        other => panic!("another answer: {other:?}"),
    }
}

fn open(dir: &std::path::Path) -> EmbeddedStore {
    EmbeddedStore::open(EmbeddedOptions::new(dir.to_owned())).unwrap()
}

#[tokio::test]
async fn a_submission_survives_a_restart_and_its_key_gives_the_same_group() {
    let dir = tempfile::tempdir().unwrap();
    let submit = |group| Submit { group: GroupId(group), submission: submission(100_000), body_digest: 3 };
    let store = open(dir.path());
    let first = store.call(submit(11)).await.unwrap().unwrap();
    assert!(!first.repeated);
    let session = SessionId(5);
    store.call(OpenSession { session, address: "here".to_owned() }).await.unwrap();
    let number = ClaimNumber(1);
    let claim = Claim { session, number, containers_max: 100, known: FleetVersion(0), changes_max: 10 };
    assert_eq!(store.call(claim).await.unwrap().unwrap().containers.len(), 100);
    let before = audit(&store).await;
    assert_eq!((before.accepted, before.queued, before.claimed), (100_000, 99_900, 100));
    drop(store);
    let store = open(dir.path());
    let after = audit(&store).await;
    assert_eq!((after.accepted, after.queued, after.claimed), (100_000, 100_000, 0), "claims are void");
    assert_eq!(after.violations, Vec::<String>::new());
    let again = store.call(submit(12)).await.unwrap().unwrap();
    assert_eq!((again.group, again.repeated), (GroupId(11), true));
    match store.read(Query::Events { after: volley_model::EventNumber(0), max: 10, scope: None }).await.unwrap() {
        Answer::Events(page) => assert_eq!(page.events.len(), 1),
        other => panic!("another answer: {other:?}"),
    }
}

#[tokio::test]
async fn one_process_per_directory_and_a_backup_that_opens() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let second = EmbeddedStore::open(EmbeddedOptions::new(dir.path().to_owned()));
    assert!(matches!(second, Err(OpenError::InUse { .. })));
    store.call(Submit { group: GroupId(1), submission: submission(7), body_digest: 3 }).await.unwrap().unwrap();
    let copy = tempfile::tempdir().unwrap();
    store.backup(copy.path().join("volley.db")).await.unwrap();
    assert_eq!(audit(&open(copy.path())).await.accepted, 7);
    assert!(store.backup(copy.path().join("volley.db")).await.is_err(), "a file is never replaced");
}

#[tokio::test]
async fn tokens_and_tenants_limits_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (tenant, hash) = (TenantName::new("a").unwrap(), SecretHash::of("secret"));
    let create = |id: u64, hash| CreateToken {
        token: TokenId(id),
        hash,
        tenant: tenant.clone(),
        role: Role::Submit,
        note: None,
        expires_in: None,
    };
    let made = store.call(create(u64::MAX, hash)).await.unwrap().unwrap();
    let other = store.call(create(2, SecretHash::of("other"))).await.unwrap().unwrap();
    store.call(RevokeToken { token: other.id }).await.unwrap().unwrap();
    let rate = Some(Rate { per_second: 5, burst: 9 });
    let limits = Tenant { name: tenant.clone(), backlog_max: Some(7), rate };
    store.call(ApplyTenant { tenant: limits.clone() }).await.unwrap().unwrap();
    drop(store);
    let store = open(dir.path());
    let token = |hash| store.read(Query::Token(hash));
    assert!(matches!(token(hash).await.unwrap(), Answer::Token(Some(found)) if *found == made));
    let revoked = token(other.hash).await.unwrap();
    assert!(matches!(revoked, Answer::Token(Some(found)) if found.revoked_at.is_some()));
    assert!(matches!(token(SecretHash::of("no")).await.unwrap(), Answer::Token(None)));
    let tenants = store.read(Query::Tenants { after: None, max: 10 }).await.unwrap();
    assert!(matches!(tenants, Answer::Tenants { tenants, more: false } if tenants[0].tenant == limits));
}
