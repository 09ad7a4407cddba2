//! The document of the API (OpenAPI 3.1), made from the routes themselves.
//!
//! A route enters the server and the document at once, by `routes!`: neither can lack what the
//! other has. A handler says what is its own: name, parameters, body, answers. What holds for many
//! routes is added here: who may ask, the header that names a workspace, and the problems that
//! every route of a kind may end in. A route tells a problem of its own by its status and a word
//! about it; the content is added here, too.
//!
//! Promises: the document is the same for everybody and tells nothing of this installation, so that
//! it needs no key. Refuses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde_json::{Map, Value};
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{
    AdditionalProperties, KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, SchemaType,
    Type,
};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, ContentBuilder, InfoBuilder, License, OpenApi, OpenApiBuilder, Ref, RefOr,
    Required, Response, ResponseBuilder, ServerBuilder,
};
use utoipa::{PartialSchema, ToSchema};

use super::auth::cookie::SECURE as SESSION_COOKIE;
use super::problem::{Code, Document};

/// What a problem calls itself.
pub(super) const PROBLEM: &str = "application/problem+json";

const ABOUT: &str = "\
Durable jobs: accepted by PostgreSQL, run by way of Redis in BullMQ's key layout.

Request fields are camelCase, or snake_case as well. Answers have the record's column names; what \
may be null in them is always there. Clients should pass over fields that they do not know. Every \
answer has an `X-Request-Id`: that of the request, or a new one. Every error is a problem document \
(RFC 9457) with a stable `code`.";

/// The answers that routes share: when to name them, and their names among the components.
const SHARED: [(&str, &str, &str); 10] = [
    ("400", "BadRequest", "What was sent can not be read."),
    (
        "401",
        "Unauthorized",
        "The key or token is missing or wrong.",
    ),
    ("403", "Forbidden", "The caller may not do this here."),
    (
        "404",
        "NotFound",
        "There is no such thing in this workspace.",
    ),
    ("408", "BodyTimeout", "The body stood still for too long."),
    (
        "413",
        "TooLarge",
        "The body is larger than this route takes.",
    ),
    (
        "415",
        "UnsupportedMediaType",
        "The body does not call itself JSON.",
    ),
    (
        "422",
        "Invalid",
        "The body can be read, but something in it is wrong.",
    ),
    (
        "429",
        "TooMany",
        "The caller has too much under way, or has created its jobs of this hour.",
    ),
    ("503", "Unavailable", "Not now: try again after a moment."),
];
/// Every other one.
const ANY: (&str, &str, &str) = (
    "default",
    "Problem",
    "Any other problem, such as 405 or 500.",
);

/// The groups of routes, in their order.
const TAGS: [(&str, &str); 14] = [
    ("jobs", "Enqueue, find, cancel, retry and delete jobs."),
    (
        "imports",
        "Look at a file before it is imported, at templates, and at what became of imports.",
    ),
    (
        "exports",
        "Records as files, and links that open them without a key.",
    ),
    ("queues", "Look at queues, pause, limit and drain them."),
    ("schedules", "Jobs that are made again and again."),
    (
        "webhooks",
        "Tell receivers outside of what happens to jobs, signed.",
    ),
    (
        "connections",
        "Providers outside, and what a workspace has to call them with.",
    ),
    (
        "email",
        "Sequences of mails, what becomes of each mail, and whom none is sent to.",
    ),
    (
        "crm",
        "What is linked with a CRM, how far syncs are, and conflicts that a person decides.",
    ),
    ("figures", "How much there is to do, and how it goes."),
    ("job types", "What kinds of jobs there are."),
    ("access", "Who may do what, and who did it."),
    (
        "operations",
        "Workers, limits, alerts and consistency, for those who run it.",
    ),
    ("server", "The server itself, and this document."),
];

/// The beginning of the document; the routes come to it.
fn head() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Bullwark")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(License::new("MIT")))
        .build();
    let server = ServerBuilder::new()
        .url("/")
        .description(Some("The server that this document came from."))
        .build();
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([server]))
        .security(Some([
            SecurityRequirement::new::<_, _, &str>("bearer", []),
            SecurityRequirement::new::<_, _, &str>("api_key", []),
        ]))
        .tags(Some(TAGS.map(|(name, about)| {
            TagBuilder::new()
                .name(name)
                .description(Some(about))
                .build()
        })))
        .components(Some(components()))
        .build()
}

fn components() -> Components {
    let mut bearer = Http::new(HttpAuthScheme::Bearer);
    bearer.description = Some("An API key, or a JSON Web Token of a user.".to_owned());
    let key = ApiKeyValue::with_description("X-API-Key", "An API key.");
    let mut components = Components::new();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(key)));
    let about = "A browser's session, of `POST /api/session`, for pages of this server only.";
    let session = ApiKeyValue::with_description(SESSION_COOKIE, about);
    let session = SecurityScheme::ApiKey(ApiKey::Cookie(session));
    components.add_security_scheme("session", session);
    let mut schemas = vec![(Document::name().into_owned(), Document::schema())];
    Document::schemas(&mut schemas);
    components.schemas.extend(schemas);
    for (status, name, about) in SHARED.into_iter().chain([ANY]) {
        let answer = shared(status, about);
        components.responses.insert(name.to_owned(), answer.into());
    }
    components
}

fn shared(status: &str, about: &str) -> Response {
    let codes = Code::all().into_iter();
    let codes: Vec<String> = codes
        .filter(|code| code.status().as_str() == status)
        .map(|code| format!("`{}`", code.as_str()))
        .collect();
    let about = match codes.is_empty() {
        true => about.to_owned(),
        false => format!("{about} Codes: {}.", codes.join(", ")),
    };
    let mut answer = ResponseBuilder::new().description(about);
    if status == "503" || status == "429" {
        let seconds = ObjectBuilder::new().schema_type(Type::Integer).build();
        answer = answer.header("Retry-After", Header::new(seconds));
    }
    let mut answer = answer.build();
    fill(&mut answer);
    answer
}

/// Gives an answer that is a problem the content of one.
fn fill(answer: &mut Response) {
    let schema = Ref::from_schema_name(Document::name());
    let content = ContentBuilder::new().schema(Some(schema)).build();
    answer.content.insert(PROBLEM.to_owned(), content.into());
}

/// The document of these routes, with what they share.
pub(super) fn complete(routes: OpenApi) -> OpenApi {
    let mut document = head().merge_from(routes);
    let asked_for = asked_for(&document);
    let schemas = document.components.iter_mut();
    for (name, schema) in schemas.flat_map(|all| &mut all.schemas) {
        match asked_for.contains(name) {
            true => close(schema),
            false => each_object(schema, &require_nullable),
        }
    }
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            complete_operation(path, operation);
        }
    }
    document
}

/// The names of the schemas that requests are made of.
fn asked_for(document: &OpenApi) -> BTreeSet<String> {
    let document = serde_json::to_value(document).unwrap_or_default();
    let mut names = BTreeSet::new();
    let items = document["paths"]
        .as_object()
        .into_iter()
        .flat_map(Map::values);
    let operations = items.filter_map(Value::as_object).flat_map(Map::values);
    for operation in operations {
        add_named(&document, &operation["requestBody"], &mut names);
    }
    names
}

/// Adds the schemas that a part of the document names, and those that they name.
fn add_named(document: &Value, part: &Value, names: &mut BTreeSet<String>) {
    match part {
        Value::Object(members) => {
            let named = members.get("$ref").and_then(Value::as_str);
            let name = named.and_then(|path| path.strip_prefix("#/components/schemas/"));
            if let Some(name) = name.filter(|name| names.insert((*name).to_owned())) {
                add_named(document, &document["components"]["schemas"][name], names);
            }
            members
                .values()
                .for_each(|value| add_named(document, value, names));
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| add_named(document, item, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A schema that is an object, or each that it may be.
fn each_object(schema: &mut RefOr<Schema>, change: &impl Fn(&mut Object)) {
    let parts = match schema {
        RefOr::T(Schema::Object(object)) => return change(object),
        RefOr::T(Schema::OneOf(all)) => &mut all.items,
        RefOr::T(Schema::AllOf(all)) => &mut all.items,
        RefOr::T(_) | RefOr::Ref(_) => return,
    };
    parts.iter_mut().for_each(|part| each_object(part, change));
}

/// Requests are refused for what is not known; the macros do not see it of an enum. The parts of a
/// whole (`allOf`) do not know each other, so they stay as they are.
fn close(schema: &mut RefOr<Schema>) {
    match schema {
        RefOr::T(Schema::Object(object)) if !object.properties.is_empty() => {
            let closed = Box::new(AdditionalProperties::FreeForm(false));
            object.additional_properties.get_or_insert(closed);
        }
        RefOr::T(Schema::OneOf(all)) => all.items.iter_mut().for_each(close),
        RefOr::T(_) | RefOr::Ref(_) => {}
    }
}

/// What may be null in answers is always there; the macros take it for what may be absent.
fn require_nullable(object: &mut Object) {
    let nullable = object
        .properties
        .iter()
        .filter(|(_, part)| is_nullable(part));
    for (name, _) in nullable {
        if !object.required.contains(name) {
            object.required.push(name.clone());
        }
    }
}

fn is_nullable(schema: &RefOr<Schema>) -> bool {
    let is_null = |kind: &SchemaType| match kind {
        SchemaType::Type(one) => *one == Type::Null,
        SchemaType::Array(all) => all.contains(&Type::Null),
        SchemaType::AnyValue => false,
    };
    match schema {
        RefOr::T(Schema::Object(object)) => {
            let is_anything = object.schema_type == SchemaType::AnyValue;
            is_anything || is_null(&object.schema_type)
        }
        RefOr::T(Schema::Array(array)) => is_null(&array.schema_type),
        RefOr::T(Schema::OneOf(all)) => all.items.iter().any(is_nullable),
        RefOr::T(_) | RefOr::Ref(_) => false,
    }
}

/// Those that routes have.
fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let all = [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.patch,
        &mut item.delete,
    ];
    all.into_iter().filter_map(Option::as_mut)
}

fn complete_operation(path: &str, operation: &mut Operation) {
    let mut may_end_in = vec!["503"];
    // Health says so itself: it needs no key.
    if operation.security.is_none() {
        may_end_in.extend(["400", "401", "403", "429"]);
        let parameters = operation.parameters.get_or_insert_default();
        parameters.push(workspace().into());
    }
    if path.contains('{') {
        may_end_in.push("404");
    }
    if let Some(RefOr::T(body)) = &operation.request_body {
        may_end_in.extend(["408", "413"]);
        if body.content.contains_key("application/json") {
            may_end_in.extend(["415", "422"]);
        }
    }
    let answers: &mut BTreeMap<_, _> = &mut operation.responses.responses;
    for (status, answer) in answers.iter_mut() {
        let is_problem = status.starts_with(['4', '5']);
        if let RefOr::T(answer) = answer
            && is_problem
            && answer.content.is_empty()
        {
            fill(answer);
        }
    }
    let shared = SHARED
        .iter()
        .filter(|(status, ..)| may_end_in.contains(status));
    for (status, name, _) in shared.chain([&ANY]) {
        let shared = || Ref::from_response_name(*name).into();
        answers.entry((*status).to_owned()).or_insert_with(shared);
    }
}

fn workspace() -> Parameter {
    let about = "The workspace, for callers that have several.";
    uuid_parameter("X-Workspace-Id", ParameterIn::Header, about)
}

/// A parameter that is an id.
pub(super) fn uuid_parameter(name: &str, place: ParameterIn, about: &str) -> Parameter {
    let id = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)));
    let required = match place {
        ParameterIn::Path => Required::True,
        _ => Required::False,
    };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .description(Some(about))
        .schema(Some(Schema::from(id)))
        .build()
}

/// The document as JSON text.
static TEXT: LazyLock<Bytes> = LazyLock::new(|| super::openapi().into());

/// This document
#[utoipa::path(get, path = "/api/openapi.json", operation_id = "getOpenApi", tag = "server",
    security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = Value)))]
pub(super) async fn document() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], TEXT.clone())
}
