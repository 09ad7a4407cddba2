//! An organization: its records, and what it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use chrono::{DateTime, SubsecRound, Utc};
use serde_json::{Map, Value, json};

use super::BulkJob;
use crate::clock;

pub(super) type Fields = Map<String, Value>;

/// Who changes records.
pub(super) const PERSON: &str = "005000000000001AAA";
pub(super) const INTEGRATION: &str = "005000000000009AAA";
const EXTERNAL_ID: &str = "Bullwark_Id__c";
const BUDGET: usize = 100_000;
const PORTION: usize = 2000;

#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) fields: Fields,
    pub(super) is_deleted: bool,
}

#[derive(Debug)]
pub(super) struct Org {
    pub(super) id: String,
    pub(super) objects: BTreeMap<String, BTreeMap<String, Record>>,
    /// Writes that find a record locked, by its external id.
    pub(super) locked: BTreeMap<String, usize>,
    pub(super) bulk: BTreeMap<String, BulkJob>,
    /// Records of one answer, and, by where they are, those that did not fit: of so many.
    pub(super) portion: usize,
    pub(super) left: BTreeMap<String, (usize, Vec<Value>)>,
    pub(super) budget: usize,
    pub(super) used: usize,
    /// Limits that the call under way broke.
    pub(super) broken: usize,
    pub(super) last: u64,
}

impl Default for Org {
    fn default() -> Self {
        let number = uuid::Uuid::new_v4().as_u128() % 1_000_000_000_000;
        Self {
            id: format!("00D{number:012}AAA"),
            objects: BTreeMap::new(),
            locked: BTreeMap::new(),
            bulk: BTreeMap::new(),
            portion: PORTION,
            left: BTreeMap::new(),
            budget: BUDGET,
            used: 0,
            broken: 0,
            last: 0,
        }
    }
}

/// What `describe` says, by object.
pub(super) static FIELDS: LazyLock<BTreeMap<&str, Vec<Value>>> = LazyLock::new(|| {
    let text = |name: &str, length: u32, is_needed: bool| {
        json!({
            "name": name, "type": "string", "length": length, "nillable": !is_needed,
            "defaultedOnCreate": false, "createable": true, "updateable": true,
            "externalId": name == EXTERNAL_ID, "restrictedPicklist": false, "picklistValues": [],
        })
    };
    let number = |name: &str| {
        let mut field = text(name, 0, false);
        field["type"] = json!("double");
        field
    };
    let fixed = |name: &str, kind: &str| {
        json!({
            "name": name, "type": kind, "length": 0, "nillable": false,
            "defaultedOnCreate": true, "createable": false, "updateable": false,
            "externalId": false, "restrictedPicklist": false, "picklistValues": [],
        })
    };
    let mut stage = text("StageName", 255, true);
    stage["type"] = json!("picklist");
    stage["restrictedPicklist"] = json!(true);
    let stages = ["Prospecting", "Qualification", "Closed Won", "Closed Lost"];
    let stages = stages.map(|value| json!({ "value": value, "active": true }));
    stage["picklistValues"] = json!(stages);
    let mut day = text("CloseDate", 0, true);
    day["type"] = json!("date");
    let own = || {
        vec![
            fixed("Id", "id"),
            fixed("SystemModstamp", "datetime"),
            fixed("LastModifiedById", "reference"),
            fixed("IsDeleted", "boolean"),
            text(EXTERNAL_ID, 36, false),
        ]
    };
    let of = |names: &[&str]| {
        names
            .iter()
            .map(|name| text(name, 255, false))
            .collect::<Vec<_>>()
    };
    let mut account = own();
    account.push(text("Name", 255, true));
    account.extend(of(&[
        "Website",
        "Industry",
        "BillingCountry",
        "BillingCity",
        "Phone",
    ]));
    account.extend([text("Description", 32_000, false)]);
    account.extend(["NumberOfEmployees", "AnnualRevenue"].map(number));
    let mut contact = own();
    contact.extend([text("LastName", 80, true), text("FirstName", 40, false)]);
    contact.extend(of(&[
        "Title",
        "Phone",
        "MailingCountry",
        "MailingCity",
        "AccountId",
    ]));
    contact.push(text("Email", 80, false));
    let mut opportunity = own();
    opportunity.extend([text("Name", 120, true), stage, day]);
    opportunity.extend(["Amount", "Probability"].map(number));
    opportunity.extend([
        text("Description", 32_000, false),
        text("AccountId", 18, false),
    ]);
    BTreeMap::from([
        ("Account", account),
        ("Contact", contact),
        ("Opportunity", opportunity),
    ])
});

pub(super) fn prefix(object: &str) -> &'static str {
    match object {
        "Account" => "001",
        "Contact" => "003",
        "Opportunity" => "006",
        "QueryLocator" => "01g",
        _ => "750",
    }
}

pub(super) fn map(value: Value) -> Fields {
    match value {
        Value::Object(fields) => fields,
        _ => Fields::new(),
    }
}

/// A field as `describe` has it.
pub(super) fn field(object: &str, name: &str) -> Option<&'static Value> {
    FIELDS
        .get(object)?
        .iter()
        .find(|field| field["name"] == name)
}

pub(super) fn failed(code: &str, message: &str, fields: &[&str]) -> Value {
    let error = json!({ "statusCode": code, "message": message, "fields": fields });
    json!({ "success": false, "errors": [error] })
}

fn done(id: &str, created: bool) -> Value {
    json!({ "id": id, "success": true, "created": created, "errors": [] })
}

/// To the second, as Salesforce has it.
pub(super) fn stamp(at: DateTime<Utc>) -> Value {
    json!(
        at.trunc_subsecs(0)
            .format("%Y-%m-%dT%H:%M:%S.000+0000")
            .to_string()
    )
}

impl Org {
    pub(super) fn next_id(&mut self, object: &str) -> String {
        self.last += 1;
        format!("{}{:012}AAA", prefix(object), self.last)
    }

    pub(super) fn make(&mut self, object: &str, mut fields: Fields, by: &str) -> String {
        let id = self.next_id(object);
        fields.insert("Id".to_owned(), json!(id));
        let record = Record {
            fields,
            is_deleted: false,
        };
        self.objects
            .entry(object.to_owned())
            .or_default()
            .insert(id.clone(), record);
        self.change(object, &id, Fields::new(), by);
        id
    }

    pub(super) fn change(&mut self, object: &str, id: &str, fields: Fields, by: &str) {
        let records = self.objects.entry(object.to_owned()).or_default();
        let Some(record) = records.get_mut(id) else {
            return;
        };
        record.fields.extend(fields);
        record
            .fields
            .insert("SystemModstamp".to_owned(), stamp(clock::now()));
        record
            .fields
            .insert("LastModifiedById".to_owned(), json!(by));
    }

    /// Whether it was there.
    pub(super) fn delete(&mut self, object: &str, id: &str) -> bool {
        let records = self.objects.entry(object.to_owned()).or_default();
        match records.get_mut(id).filter(|record| !record.is_deleted) {
            None => false,
            Some(record) => {
                record.is_deleted = true;
                record
                    .fields
                    .insert("SystemModstamp".to_owned(), stamp(clock::now()));
                true
            }
        }
    }

    pub(super) fn living(&mut self, object: &str) -> BTreeMap<String, Fields> {
        let records = self.objects.entry(object.to_owned()).or_default();
        let living = records.iter().filter(|(_, record)| !record.is_deleted);
        living
            .map(|(id, record)| (id.clone(), record.fields.clone()))
            .collect()
    }

    fn by_field(&self, object: &str, name: &str, value: &Value) -> Option<String> {
        let records = self.objects.get(object)?;
        let mut living = records.iter().filter(|(_, record)| !record.is_deleted);
        let found = living.find(|(_, record)| record.fields.get(name) == Some(value));
        found.map(|(id, _)| id.clone())
    }

    pub(super) fn upsert(&mut self, object: &str, key: &str, record: Fields) -> Value {
        let Some(value) = record.get(key).filter(|value| !value.is_null()).cloned() else {
            return failed("MISSING_ARGUMENT", "no external id", &[key]);
        };
        match self.by_field(object, key, &value) {
            Some(id) => self.write(object, Some(&id), record),
            None => self.write(object, None, record),
        }
    }

    pub(super) fn update(&mut self, object: &str, mut record: Fields) -> Value {
        let id = record.remove("id").or_else(|| record.remove("Id"));
        let id = id
            .as_ref()
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let known = self
            .objects
            .get(object)
            .and_then(|records| records.get(&id));
        match known {
            None => failed(
                "INVALID_CROSS_REFERENCE_KEY",
                "invalid cross reference id",
                &[],
            ),
            Some(known) if known.is_deleted => {
                failed("ENTITY_IS_DELETED", "entity is deleted", &[])
            }
            Some(_) => self.write(object, Some(&id), record),
        }
    }

    fn write(&mut self, object: &str, id: Option<&str>, mut fields: Fields) -> Value {
        let own = fields.get(EXTERNAL_ID).cloned().unwrap_or_default();
        if let Some(left) = own.as_str().and_then(|own| self.locked.get_mut(own))
            && *left > 0
        {
            *left -= 1;
            let why = "unable to obtain exclusive access to this record";
            return failed("UNABLE_TO_LOCK_ROW", why, &[]);
        }
        if let Some(other) = self
            .by_field(object, EXTERNAL_ID, &own)
            .filter(|_| !own.is_null())
            && Some(other.as_str()) != id
        {
            let why = format!(
                "duplicate value found: {EXTERNAL_ID} duplicates value on record with id: {other}"
            );
            return failed("DUPLICATE_VALUE", &why, &[]);
        }
        let names: BTreeSet<String> = fields.keys().cloned().collect();
        for name in &names {
            let value = &fields[name];
            let Some(field) = field(object, name) else {
                let why = format!("No such column '{name}' on sobject of type {object}");
                return failed("INVALID_FIELD", &why, &[name]);
            };
            if field["updateable"] == false {
                let why = "Unable to create/update fields";
                return failed("INVALID_FIELD_FOR_INSERT_UPDATE", why, &[name]);
            }
            let length = value.as_str().map_or(0, |text| text.chars().count() as u64);
            let max = field["length"].as_u64().unwrap_or_default();
            if max > 0 && length > max {
                let why = format!("{name}: data value too large (max length={max})");
                return failed("STRING_TOO_LONG", &why, &[name]);
            }
            let choices = field["picklistValues"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let is_choice = choices.iter().any(|choice| choice["value"] == *value);
            if field["restrictedPicklist"] == true && !value.is_null() && !is_choice {
                let why = format!("bad value for restricted picklist field: {value}");
                return failed("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", &why, &[name]);
            }
        }
        let all = FIELDS.get(object).map(Vec::as_slice).unwrap_or_default();
        for field in all {
            let name = field["name"].as_str().unwrap_or_default();
            let is_needed = field["nillable"] == false && field["createable"] == true;
            let given = fields.get(name).map(Value::is_null);
            if is_needed && (given == Some(true) || (given.is_none() && id.is_none())) {
                let why = format!("Required fields are missing: [{name}]");
                return failed("REQUIRED_FIELD_MISSING", &why, &[name]);
            }
        }
        let account = fields
            .get("AccountId")
            .and_then(Value::as_str)
            .map(str::to_owned);
        if let Some(account) = account {
            match self
                .objects
                .get("Account")
                .and_then(|all| all.get(&account))
            {
                Some(account) if !account.is_deleted => {}
                Some(_) => return failed("ENTITY_IS_DELETED", "entity is deleted", &["AccountId"]),
                None => {
                    let why = "Account ID: id value of incorrect type";
                    return failed("INVALID_CROSS_REFERENCE_KEY", why, &["AccountId"]);
                }
            }
        }
        fields.remove("Id");
        match id {
            Some(id) => {
                self.change(object, id, fields, INTEGRATION);
                done(id, false)
            }
            None => done(&self.make(object, fields, INTEGRATION), true),
        }
    }
}
