//! Tenants and tokens. Rates are left to the random sequences: a store that is reopened all
//! the time has full buckets.

use volley_ledger::{
    Answer, ApplyTenant, CreateToken, LedgerOptions, Query, RemoveTenant, RevokeToken, Submit, SubmitRefusal,
    TokenRefusal,
};
use volley_model::{GroupId, Role, SecretHash, Tenant, TenantName, TokenId};

use super::{Open, bench};
use crate::bench::{Bench, submission};
use crate::cell::{secs, spec};

fn tenant(name: &str) -> TenantName {
    TenantName::new(name).expect("a good name")
}

pub fn bounds_a_tenants_backlog(open: Open) {
    let mut bench = bench(open);
    let limits = Tenant { name: tenant("a"), backlog_max: Some(5), rate: None };
    bench.twice(ApplyTenant { tenant: limits.clone() }).expect("not too many");
    let submit = |group, name, count| {
        let mut submission = submission(&[(&spec(), count)], None);
        submission.tenant = tenant(name);
        Submit { group: GroupId(group), submission, body_digest: 0 }
    };
    bench.call(submit(1, "a", 4)).expect("room for five");
    bench.call(submit(2, "b", 40)).expect("no limit");
    let refusal = SubmitRefusal::TenantBacklogFull { tenant: tenant("a"), waiting: 4, limit: 5, asked: 2 };
    assert_eq!(bench.twice(submit(3, "a", 2)), Err(refusal));
    let Answer::Tenants { tenants, more } = bench.subject.read(Query::Tenants { after: None, max: 1 }) else {
        panic!()
    };
    assert_eq!((tenants[0].tenant.clone(), tenants[0].waiting, more), (limits, 4, true));
    bench.call(RemoveTenant { tenant: tenant("a") }).expect("it has limits");
    assert!(bench.call(RemoveTenant { tenant: tenant("a") }).is_err());
    bench.call(submit(3, "a", 2)).expect("no limit any more");
}

pub fn keeps_tokens(open: Open) {
    let options = LedgerOptions { tokens_max: 2, token_record_age_max: secs(60), ..LedgerOptions::default() };
    let mut bench = Bench::new(open, options);
    let create = |id: u64, expires_in| CreateToken {
        token: TokenId(id),
        hash: SecretHash::of(&id.to_string()),
        tenant: tenant("a"),
        role: Role::Worker,
        note: Some("rack 3".to_owned()),
        expires_in,
    };
    let made = bench.twice(create(u64::MAX, None)).expect("nothing speaks against it");
    let ending = bench.twice(create(7, Some(secs(5)))).expect("nothing speaks against it");
    assert_eq!(bench.twice(create(8, None)), Err(TokenRefusal::TooMany { limit: 2 }));
    let token = |bench: &mut Bench, hash| match bench.subject.read(Query::Token(hash)) {
        Answer::Token(token) => token.map(|token| *token),
        other => panic!("another answer: {other:?}"),
    };
    assert_eq!(token(&mut bench, made.hash), Some(made.clone()));
    assert_eq!(token(&mut bench, SecretHash::of("8")), None);
    let revoked = bench.twice(RevokeToken { token: made.id }).expect("it is known");
    assert_eq!(token(&mut bench, made.hash), Some(revoked));
    bench.later(secs(65));
    bench.sweep();
    let Answer::Tokens { tokens, more } = bench.subject.read(Query::Tokens { after: None, max: 10 }) else { panic!() };
    assert_eq!((tokens.len(), more), (0, false), "{} ended and all are forgotten", ending.id);
    bench.call(create(8, None)).expect("there is room again");
}
