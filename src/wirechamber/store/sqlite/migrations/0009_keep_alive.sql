-- How a device said that it is kept in touch with, as JSON.
alter table told add column keep_alive text;
