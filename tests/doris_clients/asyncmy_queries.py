"""Queries by asyncmy. Arguments: query port, user, password, database, table. One line each."""

import asyncio
import importlib
import sys


async def main() -> None:
    """Do it."""
    port, user, password, database, table = sys.argv[1:]
    asyncmy = importlib.import_module("asyncmy")
    connection = await asyncmy.connect(
        host="127.0.0.1", port=int(port), user=user, password=password, db=database
    )
    async with connection.cursor() as cursor:
        await cursor.execute(f"INSERT INTO {table} (id, name) VALUES (%s, %s)", (900, "it's"))
        await cursor.execute(f"SELECT id, name, size FROM {table} WHERE id = %s", (900,))
        print(await cursor.fetchall())
        try:
            await cursor.execute("SELECT * FROM nothing")
        except asyncmy.errors.Error as e:
            print(e.args)
    connection.close()


if __name__ == "__main__":
    asyncio.run(main())
