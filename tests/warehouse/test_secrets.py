"""A password is in no message, no log line, no description and no traceback."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

import psycopg2
import pytest

from memorag_pipeline.errors import WarehouseError
from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.warehouse import Warehouse, open_warehouse
from tests.warehouse.answer_rows import KEY, answers

QUERY_WITH_PASSWORD = "SELECT '{password}' FROM kb.no_such_table"


def postgres(url: str) -> WarehouseSpec:
    return WarehouseSpec(destination="postgres", database=url, dataset="kb")


def refuse_the_password(warehouse: Warehouse) -> None:
    warehouse.merge(answers(1), "answers", KEY)


def break_a_load(warehouse: Warehouse) -> None:
    warehouse.merge(answers(1, answer=None), "answers", KEY)


def break_a_query(warehouse: Warehouse) -> None:
    warehouse.query(QUERY_WITH_PASSWORD)


@pytest.mark.parametrize("failure", [refuse_the_password, break_a_load, break_a_query])
def test_the_password_is_never_shown(
    postgres_url: str,
    failure: Callable[[Warehouse], None],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    quoted = str(urlsplit(postgres_url).password)
    password = unquote(quoted)
    url = postgres_url
    if failure is refuse_the_password:
        url, quoted, password = postgres_url.replace(quoted, "wr%40ng-pass"), "wr%40ng-pass", "wr@ng-pass"
    else:
        open_warehouse(postgres(url)).merge(answers(1), "answers", KEY)
    if failure is break_a_load:
        connection = psycopg2.connect(url)
        with connection, connection.cursor() as cursor:
            cursor.execute("ALTER TABLE kb.answers ALTER COLUMN answer SET NOT NULL")
            # A database function that says what it should not.
            cursor.execute(
                f"CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'it is % or %',"
                f" '{password}', '{quoted}'; END $$"
            )
            cursor.execute("CREATE TRIGGER t BEFORE INSERT ON kb.answers FOR EACH ROW EXECUTE FUNCTION tell()")
        connection.close()
    warehouse = open_warehouse(postgres(url))
    with pytest.raises(WarehouseError) as raised:
        if failure is break_a_query:
            warehouse.query(QUERY_WITH_PASSWORD.format(password=password))
        else:
            failure(warehouse)
    shown = "".join(traceback.format_exception(raised.value)) + caplog.text + "".join(capfd.readouterr())
    shown += warehouse.describe() + repr(warehouse)
    assert "schema kb" in shown
    assert password not in shown
    assert quoted not in shown
