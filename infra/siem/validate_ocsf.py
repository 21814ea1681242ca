"""Validates JSON lines of OCSF events; see validate-ocsf."""

import collections
import json
import sys

import jsonschema
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

VERSION = "1.8.0"
SHOWN = 5  # faults of each kind of event

schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=VERSION))
validators = {}


def validator(class_uid, profiles):
    key = (class_uid, tuple(profiles))
    if key not in validators:
        name = schema.lookup_class_name_from_uid(class_uid)
        validators[key] = jsonschema.Draft202012Validator(schema.get_class_schema(name, list(profiles)))
    return validators[key]


def faults(event):
    metadata = event.get("metadata", {})
    if metadata.get("version") != VERSION:
        yield f"metadata.version is {metadata.get('version')!r}, not {VERSION!r}"
        return
    # The profiles are what the event itself says it follows.
    try:
        checked = validator(event.get("class_uid"), metadata.get("profiles", []))
    except ValueError as unknown:
        yield str(unknown)
        return
    for error in checked.iter_errors(event):
        yield f"{'/'.join(map(str, error.absolute_path)) or 'event'}: {error.message[:300]}"
    if event.get("category_uid") != event.get("class_uid", 0) // 1000:
        yield "category_uid is not that of the class"
    if event.get("type_uid") != event.get("class_uid", 0) * 100 + event.get("activity_id", 0):
        yield "type_uid is not class_uid * 100 + activity_id"


def main(paths):
    total, valid, shown, classes = 0, 0, collections.Counter(), collections.Counter()
    for path in paths:
        with sys.stdin if path == "-" else open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                total += 1
                event = json.loads(line)
                found = list(faults(event))
                if not found:
                    valid += 1
                    classes[event["class_uid"]] += 1
                    continue
                code = event.get("metadata", {}).get("event_code")
                for fault in found:
                    shown[code] += 1
                    if shown[code] <= SHOWN:
                        print(f"{path}:{number}: {code}: {fault}", file=sys.stderr)
    for uid, count in sorted(classes.items()):
        print(f"{schema.lookup_class_name_from_uid(uid)} ({uid}): {count}")
    print(f"{valid} of {total} events are valid OCSF {VERSION}")
    return 0 if total and valid == total else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
