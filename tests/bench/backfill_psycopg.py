"""What one would write in Python: a keyset loop over the table, executemany, a commit for each batch.

Usage: backfill_psycopg.py URL BATCH
"""
import sys

import psycopg

READ = """
    select id, login, given_name, family_name, city, country, phone, points, balance, active
    from people where id > %s and email is null order by id limit %s for no key update"""
WRITE = "update people set email = %s, display = %s where id = %s"


def transform(row):
    key, login, given, family, city, country, phone, points, balance, active = row
    email = f"{login.strip().lower()}@{country.lower()}.example.com"
    digits = "".join(c for c in phone if c.isdigit())
    display = f"{given} {family.upper()} ({city}, {country}) +49{digits[1:]}"
    return (email, display + " *" if active and points > 50000 else display, key)


def main():
    url, batch = sys.argv[1], int(sys.argv[2])
    with psycopg.connect(url) as conn, conn.cursor() as cur:
        last = 0
        while rows := cur.execute(READ, (last, batch)).fetchall():
            last = rows[-1][0]
            cur.executemany(WRITE, [transform(row) for row in rows])
            conn.commit()


main()
