// What one would write for node-pg: a keyset loop over the table, one UPDATE from unnest arrays and a commit for
// each batch. Usage: node backfill_node.js URL BATCH, with the package pg in NODE_PATH.
"use strict";
const { Client } = require("pg");

const READ = `
  select id, login, given_name, family_name, city, country, phone, points, balance, active
  from people where id > $1 and email is null order by id limit $2 for no key update`;
const WRITE = `
  update people p set email = n.email, display = n.display
  from unnest($1::bigint[], $2::text[], $3::text[]) as n(id, email, display) where p.id = n.id`;

function transform(row) {
  const email = `${row.login.trim().toLowerCase()}@${row.country.toLowerCase()}.example.com`;
  const digits = row.phone.replace(/\D/g, "");
  const display = `${row.given_name} ${row.family_name.toUpperCase()} (${row.city}, ${row.country}) +49${digits.slice(1)}`;
  return [email, row.active && row.points > 50000 ? display + " *" : display];
}

async function main() {
  const [url, batch] = process.argv.slice(2);
  const client = new Client({ connectionString: url });
  await client.connect();
  for (let last = 0; ; ) {
    await client.query("begin");
    const { rows } = await client.query({ name: "read", text: READ, values: [last, Number(batch)] });
    if (rows.length === 0) {
      break;
    }
    const keys = [], emails = [], displays = [];
    for (const row of rows) {
      const [email, display] = transform(row);
      keys.push(row.id);
      emails.push(email);
      displays.push(display);
    }
    await client.query({ name: "write", text: WRITE, values: [keys, emails, displays] });
    await client.query("commit");
    last = rows[rows.length - 1].id;
  }
  await client.query("commit");
  await client.end();
}

main();
