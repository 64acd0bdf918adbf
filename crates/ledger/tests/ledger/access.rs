//! Tenants and tokens: limits, who is whose, and what a tenant is shown.

use volley_ledger::{
    ApplyTenant, Change, CreateToken, EventKind, NotFound, PrefixMatch, RemoveTenant, RevokeToken, Stop, StopTarget,
    Submit, SubmitRefusal, SubmitReply, TokenRefusal,
};
use volley_model::{ContainerId, GroupId, Millis, Rate, Role, SecretHash, Spec, Tenant, TenantName, TokenId};

use crate::cell::{Cell, DONE, secs, spec, submission};

fn tenant(name: &str) -> TenantName {
    TenantName::new(name).expect("a good name")
}

fn limit(cell: &mut Cell, name: &str, backlog_max: Option<u64>, rate: Option<(u32, u32)>) {
    let rate = rate.map(|(per_second, burst)| Rate { per_second, burst });
    let limits = Tenant { name: tenant(name), backlog_max, rate };
    cell.call(ApplyTenant { tenant: limits }).expect("not too many");
}

fn submit(cell: &mut Cell, name: &str, spec: &Spec, count: u32) -> Result<SubmitReply, SubmitRefusal> {
    let mut submission = submission(&[(spec, count)], None);
    submission.tenant = tenant(name);
    let group = GroupId(cell.number());
    cell.call(Submit { group, submission, body_digest: 0 })
}

fn wait(reply: Result<SubmitReply, SubmitRefusal>) -> Millis {
    match reply {
        Err(SubmitRefusal::RateExceeded { retry_after, .. }) => retry_after,
        other => panic!("not refused for its rate: {other:?}"),
    }
}

#[test]
fn a_tenant_submits_at_its_rate_and_the_wait_is_computed() {
    let mut cell = Cell::new();
    limit(&mut cell, "a", None, Some((10, 20)));
    submit(&mut cell, "a", &spec(), 20).expect("the burst");
    assert_eq!(wait(submit(&mut cell, "a", &spec(), 1)), Millis(100));
    assert_eq!(wait(submit(&mut cell, "a", &spec(), 15)), Millis(1500));
    assert_eq!(cell.last.changes, [], "a refusal writes nothing");
    cell.later(Millis(99));
    assert_eq!(wait(submit(&mut cell, "a", &spec(), 1)), Millis(1));
    cell.later(Millis(1));
    submit(&mut cell, "a", &spec(), 1).expect("just one");
    submit(&mut cell, "b", &spec(), 1000).expect("another tenant has no limit");
    // The bucket holds no more than the burst, however long the pause.
    cell.later(secs(3600));
    submit(&mut cell, "a", &spec(), 20).expect("the burst");
    assert_eq!(wait(submit(&mut cell, "a", &spec(), 1)), Millis(100));
}

#[test]
fn a_group_larger_than_the_burst_waits_for_a_full_bucket_and_leaves_a_debt() {
    let mut cell = Cell::new();
    limit(&mut cell, "a", None, Some((10, 20)));
    submit(&mut cell, "a", &spec(), 120).expect("the bucket is full");
    assert_eq!(wait(submit(&mut cell, "a", &spec(), 1)), Millis(10_100), "100 of debt and one");
    // The same limits again, and others of the backlog, change nothing of it.
    limit(&mut cell, "a", None, Some((10, 20)));
    limit(&mut cell, "a", Some(500), Some((10, 20)));
    assert_eq!(wait(submit(&mut cell, "a", &spec(), 1)), Millis(10_100));
    cell.restart();
    submit(&mut cell, "a", &spec(), 20).expect("buckets are volatile: full after a restart");
    cell.call(RemoveTenant { tenant: tenant("a") }).expect("it has limits");
    submit(&mut cell, "a", &spec(), 1000).expect("no limit any more");
}

#[test]
fn a_tenants_backlog_counts_what_waits_and_no_more() {
    let mut cell = Cell::new();
    let session = cell.session();
    limit(&mut cell, "a", Some(10), None);
    let group = submit(&mut cell, "a", &spec(), 8).expect("room for ten").group;
    let refusal =
        |waiting, asked| Err(SubmitRefusal::TenantBacklogFull { tenant: tenant("a"), waiting, limit: 10, asked });
    assert_eq!(submit(&mut cell, "a", &spec(), 3), refusal(8, 3));
    let agent = cell.agent(session, "w", 3);
    let placed = cell.assign_waiting(&agent, 3);
    assert_eq!(submit(&mut cell, "a", &spec(), 6), refusal(5, 6), "three have a place");
    cell.say(&agent, placed[0], volley_ledger::Progress::Ended(DONE));
    assert_eq!(submit(&mut cell, "a", &spec(), 6), refusal(5, 6), "what ran did not wait");
    cell.stop_of(StopTarget::Container(ContainerId { group, index: 7 }), None);
    submit(&mut cell, "a", &spec(), 6).expect("four wait, and six more may");
    cell.restart();
    assert_eq!(submit(&mut cell, "a", &spec(), 1), refusal(10, 1));
}

#[test]
fn a_tenant_sees_stops_and_names_only_its_own() {
    let mut cell = Cell::new();
    let mine = submit(&mut cell, "a", &spec(), 2).expect("no limits").group;
    let (a, b) = (tenant("a"), tenant("b"));
    let id = ContainerId { group: mine, index: 1 };
    assert!(cell.ledger.container(id, Some(&a)).is_some() && cell.ledger.container(id, None).is_some());
    assert!(cell.ledger.container(id, Some(&b)).is_none() && cell.ledger.group(mine, Some(&b)).is_none());
    let text = mine.to_string();
    assert_eq!(cell.ledger.prefix(&text, Some(&a)), [PrefixMatch::Group(mine, 2)]);
    assert_eq!(cell.ledger.prefix(&text, Some(&b)), []);
    let target = StopTarget::Container(id);
    let stop = Stop { target, tenant: Some(b.clone()), force: true };
    assert_eq!(cell.call(stop), Err(NotFound { what: format!("container {id}") }));
    let page = cell.ledger.list(&volley_ledger::ListQuery {
        tenant: Some(b.clone()),
        after: Some(id),
        max: 10,
        ..Default::default()
    });
    assert_eq!(page, Default::default(), "another's container is no place to go on from either");
    for event in cell.disk.events.values() {
        assert!(cell.ledger.shows(event, None) && cell.ledger.shows(event, Some(&a)));
        assert!(!cell.ledger.shows(event, Some(&b)));
    }
    let of_worker = EventKind::Worker {
        worker: volley_model::WorkerId::new("w").expect("a good name"),
        status: volley_model::WorkerStatus::Ready,
    };
    let event = volley_ledger::Event { number: volley_model::EventNumber(1), at: cell.now, kind: of_worker };
    assert!(!cell.ledger.shows(&event, Some(&a)), "the fleet is the operator's");
    assert_eq!(cell.stop_of(target, None).finished, 1, "an operator stops anybody's");
}

fn create(id: u64, role: Role) -> CreateToken {
    CreateToken {
        token: TokenId(id),
        hash: SecretHash::of(&id.to_string()),
        tenant: tenant("a"),
        role,
        note: Some("ci".to_owned()),
        expires_in: Some(secs(10)),
    }
}

#[test]
fn a_token_is_made_once_is_durable_and_ends() {
    let mut cell = Cell::new();
    let made = cell.call(create(1, Role::Submit)).expect("nothing speaks against it");
    assert_eq!(cell.last.changes, [Change::PutToken(made.clone())]);
    assert_eq!(cell.call(create(1, Role::Submit)), Ok(made.clone()));
    assert_eq!((cell.last.changes.len(), cell.last.events.len()), (0, 0), "the same again changes nothing");
    assert_eq!(cell.call(create(1, Role::Admin)), Err(TokenRefusal::IdTaken));
    let same_secret = CreateToken { hash: made.hash, ..create(2, Role::Admin) };
    assert_eq!(cell.call(same_secret), Err(TokenRefusal::IdTaken), "a secret is one token's");
    cell.restart();
    assert_eq!(cell.ledger.token(&made.hash), Some(made.clone()));
    assert!(made.is_live(cell.now) && !made.is_live(cell.now.after(secs(10))));
    let revoked = cell.call(RevokeToken { token: made.id }).expect("it is known");
    assert!(!revoked.is_live(cell.now));
    assert_eq!(cell.call(RevokeToken { token: made.id }), Ok(revoked));
    assert!(cell.call(RevokeToken { token: TokenId(9) }).is_err());
}

#[test]
fn ended_tokens_are_listed_for_a_while_and_then_forgotten() {
    let mut cell = Cell::new();
    let forgotten = cell.ledger.options().token_record_age_max;
    let short = cell.call(create(1, Role::Read)).expect("nothing speaks against it");
    cell.call(CreateToken { expires_in: None, ..create(2, Role::Admin) }).expect("nothing speaks against it");
    cell.later(secs(10));
    cell.later(Millis(forgotten.0 - 1));
    cell.sweep();
    assert!(cell.ledger.token(&short.hash).is_some());
    cell.later(Millis(1));
    cell.sweep();
    assert_eq!(cell.last.changes, [Change::RemoveToken(short.id)]);
    assert_eq!(cell.ledger.tokens(None, 10).0.len(), 1, "one without an end stays");
}
