//! The OpenAPI 3.1 document: the descriptions of the routes, the responses that all operations share, and the webhook.

use std::sync::LazyLock;

use axum::Extension;
use axum::body::Bytes;
use axum::http::header;
use axum::response::IntoResponse as _;
use utoipa::openapi::path::{HttpMethod, Operation, Parameter, ParameterIn, PathItem, PathsBuilder};
use utoipa::openapi::schema::{Schema, SchemaType};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Header, License, Object, Ref, RefOr, ResponseBuilder, Tag, Type};
use utoipa::{OpenApi, Path as _, ToSchema as _};

use super::event::{self, WebhookEvent};
use crate::http::answer::Answer;
use crate::http::problem::{EnvelopedProblem, ProblemBody};
use crate::http::query::Query;
use crate::http::request::is_enveloped;

const ABOUT: &str = "A self-hosted notification hub. Every answer has `X-Request-Id`; every error is \
    `application/problem+json` with a `code` and a `reason`, which `GET /v1/errors` explains.";

#[derive(OpenApi)]
#[openapi(components(schemas(ProblemBody, EnvelopedProblem, WebhookEvent)))]
struct Common;

/// The document's bytes. All answers share them, because the route needs no sign-in and may be called often.
#[derive(Clone, Copy)]
pub struct Document(pub &'static LazyLock<Bytes>);

/// Completes the document that the routes make with the title, tags, sign-in, common responses and the webhook, and
/// returns it as JSON. Every hub of one version returns the same document.
pub fn to_json(mut document: utoipa::openapi::OpenApi) -> Bytes {
    document.merge(Common::openapi());
    document.info.title = "notihub".into();
    document.info.description = Some(ABOUT.into());
    document.info.version = env!("CARGO_PKG_VERSION").into();
    document.info.license = Some(License::builder().name("Apache-2.0").identifier(Some("Apache-2.0")).build());
    document.tags =
        Some(TAGS.map(|(name, description)| Tag::builder().name(name).description(Some(description)).build()).to_vec());
    let bearer = Http::builder().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    document.components.get_or_insert_default().add_security_scheme("bearer", SecurityScheme::Http(bearer));
    for (path, item) in &mut document.paths.paths {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        let problem = if is_enveloped(path) { EnvelopedProblem::name() } else { ProblemBody::name() };
        for operation in operations.into_iter().flatten() {
            operation.parameters.iter_mut().flatten().for_each(without_null);
            add_common_responses(operation, &problem);
        }
    }
    let webhook = PathItem::new(HttpMethod::Post, event::__path_event::operation());
    document.webhooks = Some(PathsBuilder::new().path(event::__path_event::path(), webhook).build());
    serde_json::to_value(document).unwrap_or_default().to_string().into()
}

const TAGS: [(&str, &str); 17] = [
    ("sign-in", "exchange a client's secret for tokens"),
    ("messages", "post messages and read their state"),
    ("deliveries", "one message to one recipient over one channel"),
    ("webhooks", "endpoints that receive a partner's events, and the events sent to them"),
    ("providers", "accounts at vendors, their breakers and limits"),
    ("redrives", "send dead letters and events again"),
    ("notifications", "messages in the words of seed 003"),
    ("receipts", "for providers: reports about deliveries they accepted"),
    ("user-sign-in", "people sign up and sign in, where a partner allows it"),
    ("users", "a partner's own people: profiles, blocks, devices"),
    ("inbox", "items that arrived in a user's inbox, and their changes, live"),
    ("rooms", "where users talk: rooms, members, messages, and how far each has read"),
    ("channels", "rooms in the words of seed 002"),
    ("partner-users", "for partners: their users, by their own ids"),
    ("partners", "for admins: partners and their limits, keys, the audit log"),
    ("reference", "for authors of clients: error codes and this document"),
    ("operations", "for monitoring"),
];

/// A parameter may be left out, but it is never null: it is a text in the request.
fn without_null(parameter: &mut RefOr<Parameter>) {
    if let RefOr::T(Parameter { schema: Some(RefOr::T(Schema::Object(object))), .. }) = parameter
        && let SchemaType::Array(types) = &object.schema_type
        && let [only] = &types.iter().filter(|of| **of != Type::Null).collect::<Vec<_>>()[..]
    {
        object.schema_type = SchemaType::new((*only).clone());
    }
}

/// Adds the error responses that follow from an operation's path, body and sign-in. Responses that the operation
/// declares itself stay as they are. `problem`: the schema of the errors.
fn add_common_responses(operation: &mut Operation, problem: &str) {
    let parameters = operation.parameters.iter().flatten();
    let in_path = parameters.clone().any(|p| matches!(p, RefOr::T(p) if p.parameter_in == ParameterIn::Path));
    let has_body = operation.request_body.is_some();
    let names_partner = parameters.clone().any(|p| matches!(p, RefOr::T(p) if p.name == "partnerId"));
    let signs_in_now = operation.tags.iter().flatten().any(|tag| tag == "sign-in" || tag == "user-sign-in");
    // Providers authenticate in their own ways and without a bearer token.
    let proves = operation.tags.iter().flatten().any(|tag| tag == "receipts");
    // Their bodies name rooms, messages and users.
    let names_room = has_body && operation.tags.iter().flatten().any(|tag| tag == "rooms");
    let signs_in = operation.security.is_some() || signs_in_now || proves;
    let common = [
        (true, 400, "the request cannot be read"),
        (signs_in, 401, "not signed in"),
        (signs_in, 403, "signed in, but not permitted"),
        (
            in_path || names_partner || names_room || signs_in_now,
            404,
            "nothing at this address is visible to the caller",
        ),
        (has_body, 408, "the body did not arrive in time"),
        (has_body, 409, "the same key with a different request"),
        (has_body, 413, "the body is too large"),
        (true, 414, "the address is too long"),
        (has_body, 415, "the body is not declared as JSON in UTF-8"),
        (has_body, 422, "the request can be read but is not valid"),
        (signs_in, 429, "the request limit is exceeded"),
        (true, 500, "an error in the hub; its log has the details"),
        (true, 503, "temporarily unavailable"),
    ];
    for (_, status, description) in common.into_iter().filter(|row| row.0) {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name(problem))).build();
        let answer = ResponseBuilder::new().description(description).content("application/problem+json", problem);
        let answer = match status {
            429 | 503 => answer.header("Retry-After", described_header(Type::Integer, "seconds to wait")),
            _ => answer,
        };
        operation.responses.responses.entry(status.to_string()).or_insert_with(|| answer.build().into());
    }
    for answer in operation.responses.responses.values_mut() {
        if let RefOr::T(answer) = answer {
            answer.headers.insert(
                "X-Request-Id".into(),
                described_header(
                    Type::String,
                    "the id of this request in the hub's \
                    log",
                )
                .into(),
            );
        }
    }
}

fn described_header(kind: Type, description: &str) -> Header {
    let mut header = Header::new(Object::with_type(kind));
    header.description = Some(description.into());
    header
}

#[utoipa::path(get, path = "/openapi.json", operation_id = "getOpenApi", tag = "reference",
    responses((status = 200, description = "the document", body = Object)))]
/// OpenAPI document
///
/// This document, OpenAPI 3.1.
pub async fn get(Extension(Document(json)): Extension<Document>, query: Query) -> Answer {
    query.close()?;
    // The document changes only with the program's version.
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "public, max-age=300")];
    Ok((headers, Bytes::clone(json)).into_response())
}
