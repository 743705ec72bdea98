#!/usr/bin/env python3
"""Makes Secrets and integrations for kubectl from a table of tokens.

    import-tokens.py --namespace shops --app-secret tiktok-app < tokens.csv | kubectl create -f -

The table is CSV with a head line. Columns: name (of the integration; its Secret is NAME-tokens),
access_token, access_token_expire_in, refresh_token, refresh_token_expire_in, and, where there are,
team_id and active; no others. Expiries are Unix seconds, or times such as 2026-11-24T01:45:47Z or
2026-11-24 08:45:47.5+07 (without a zone: UTC). What is not active becomes a suspended integration.

Nothing is printed before the whole table is in order; errors name lines and columns, never values.
"""

import argparse
import csv
import datetime
import json
import os
import re
import sys

TOKENS = ["access_token", "access_token_expire_in", "refresh_token", "refresh_token_expire_in"]
COLUMNS = ["name", *TOKENS, "team_id", "active"]
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
# ISO 8601 as programs and databases write it; what fromisoformat takes depends on the version of Python.
TIME = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"([ T](?P<clock>[0-9]{2}:[0-9]{2}(:[0-9]{2})?)([.][0-9]+)?"
    r"(Z|(?P<sign>[+-])(?P<hours>[01][0-9]|2[0-3])(:?(?P<minutes>[0-5][0-9]))?)?)?"
)
UNIX = re.compile(r"[0-9]{9,12}")
YES, NO = {"1", "t", "true", "y", "yes"}, {"0", "f", "false", "n", "no"}


class Wrong(Exception):
    """The table can't be used; the text says why."""


def seconds(text):
    """A time as Unix seconds."""
    if UNIX.fullmatch(text):
        return text
    time = TIME.fullmatch(text)
    if not time:
        raise ValueError
    local = datetime.datetime.fromisoformat(f"{time['date']} {time['clock'] or '00:00'}")
    offset = 60 * int(time["hours"] or 0) + int(time["minutes"] or 0)
    east = -1 if time["sign"] == "-" else 1
    text = str(int(local.replace(tzinfo=datetime.timezone.utc).timestamp()) - 60 * east * offset)
    if not UNIX.fullmatch(text):
        raise ValueError
    return text


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


def shown(name):
    """In quotes, on one line."""
    return json.dumps(name, ensure_ascii=False)


def head(columns):
    """Refuses columns that would be left out: a misspelt "active" would import inactive shops as active."""
    missing = [column for column in ["name", *TOKENS] if column not in columns]
    if missing:
        raise Wrong(f"the head line lacks {', '.join(missing)}")
    for column in columns:
        if column not in COLUMNS:
            raise Wrong(f"the column {shown(column)} is none of {', '.join(COLUMNS)}")
        if columns.count(column) > 1:
            raise Wrong(f"the column {shown(column)} stands there twice")


def table(file, options):
    """All objects of a table."""
    reader = csv.DictReader(file, strict=True)
    items, names, tokens = [], set(), set()
    try:
        reader.fieldnames = [column.strip() for column in reader.fieldnames or []]
        head(reader.fieldnames)
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
    try:
        # Python has none where a shell closed it.
        if sys.stdin is None:
            raise Wrong("failed to read: standard input is closed")
        if sys.stdout is None:
            raise Wrong("failed to write: standard output is closed")
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="strict", newline="")
        items = table(sys.stdin, options)
    except Wrong as error:
        sys.exit(f"import-tokens: {error}")
    except UnicodeDecodeError:
        sys.exit("import-tokens: the table is not UTF-8")
    except OSError as error:
        sys.exit(f"import-tokens: failed to read: {error.strerror}")
    try:
        print(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1), flush=True)
    except OSError as error:
        # What is left in the buffer would fail once more at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # Who reads no more has said why.
        sys.exit(1 if isinstance(error, BrokenPipeError) else f"import-tokens: failed to write: {error.strerror}")


main()
