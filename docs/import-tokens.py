#!/usr/bin/env python3
"""Makes Secrets and integrations for kubectl from a table of tokens.

    import-tokens.py --namespace shops --app-secret tiktok-app < tokens.csv | kubectl create -f -

The table is CSV with a head line. Columns: name (of the integration; its Secret is NAME-tokens),
access_token, access_token_expire_in, refresh_token, refresh_token_expire_in, and, where there are,
team_id and active. Expiries are Unix seconds, or times such as 2026-11-24T01:45:47Z (without a zone:
UTC). What is not active becomes a suspended integration.

Nothing is printed before the whole table is in order; errors name lines and columns, never values.
"""

import argparse
import csv
import datetime
import json
import re
import sys

TOKENS = ["access_token", "access_token_expire_in", "refresh_token", "refresh_token_expire_in"]
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
YES, NO = {"1", "t", "true", "y", "yes"}, {"0", "f", "false", "n", "no"}


class Wrong(Exception):
    """The table can't be used; the text says why."""


def seconds(text):
    """A time as Unix seconds."""
    if re.fullmatch(r"[0-9]{9,12}", text):
        return text
    time = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    if time.tzinfo is None:
        time = time.replace(tzinfo=datetime.timezone.utc)
    return str(int(time.timestamp()))


def objects(row, options):
    """The Secret and the integration of one row."""
    name = row["name"]
    if not NAME.fullmatch(name) or len(name) > 56:
        raise Wrong("name must be lower-case letters, digits and dashes, at most 56")
    data = {}
    for column in TOKENS:
        value = row[column]
        if not value:
            raise Wrong(f"{column} is empty")
        if column.endswith("_expire_in"):
            try:
                value = seconds(value)
            except ValueError:
                raise Wrong(f"{column} is neither Unix seconds nor a time such as 2026-11-24T01:45:47Z") from None
        data[column] = value
    spec = {
        "appCredentialsSecretRef": {"name": options.app_secret},
        "tokenSecretRef": {"name": f"{name}-tokens"},
    }
    if row.get("team_id"):
        spec["teamId"] = row["team_id"]
    active = (row.get("active") or "true").lower()
    if active not in YES | NO:
        raise Wrong("active must be true or false")
    if active in NO:
        spec["suspend"] = True
    place = {"namespace": options.namespace}
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{name}-tokens", **place}, "stringData": data},
        {
            "apiVersion": "tiktokshop.dev/v1alpha1",
            "kind": "TikTokShopIntegration",
            "metadata": {"name": name, **place},
            "spec": spec,
        },
    ]


def table(file, options):
    """All objects of a table."""
    reader = csv.DictReader(file, strict=True)
    items, names, tokens = [], set(), set()
    try:
        missing = [column for column in ["name", *TOKENS] if column not in (reader.fieldnames or [])]
        if missing:
            raise Wrong(f"the head line lacks {', '.join(missing)}")
        for row in reader:
            if None in row or None in row.values():
                raise Wrong("it has another number of columns than the head line")
            row = {column: value.strip() for column, value in row.items()}
            items += objects(row, options)
            if row["name"] in names:
                raise Wrong("its name stands in an earlier line")
            if row["refresh_token"] in tokens:
                raise Wrong("its refresh token stands in an earlier line: one would spend the other's")
            names.add(row["name"])
            tokens.add(row["refresh_token"])
    except csv.Error as error:
        # The line that can't be read is not counted.
        raise Wrong(f"line {reader.line_num + 1}: {error}") from None
    except Wrong as error:
        raise Wrong(f"line {reader.line_num}: {error}") from None
    if not items:
        raise Wrong("there is no line but the head line")
    return items


def main():
    """Reads standard input, writes a List."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--namespace", required=True, help="of Secrets and integrations")
    parser.add_argument("--app-secret", required=True, help="the Secret with the app's key and secret")
    options = parser.parse_args()
    sys.stdin.reconfigure(encoding="utf-8-sig", errors="strict", newline="")
    try:
        items = table(sys.stdin, options)
    except (Wrong, UnicodeDecodeError) as error:
        text = error if isinstance(error, Wrong) else "the table is not UTF-8"
        sys.exit(f"import-tokens: {text}")
    json.dump({"apiVersion": "v1", "kind": "List", "items": items}, sys.stdout, indent=1)
    print()


main()
