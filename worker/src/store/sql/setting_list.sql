SELECT name, value FROM settings WHERE name = ANY ($1::text[])
