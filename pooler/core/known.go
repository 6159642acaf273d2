package core

import "strings"

// functionKind is what is known of a name in front of a parenthesis.
type functionKind uint8

const (
	unknownFunction functionKind = iota // of somebody's own: it may do anything
	harmlessFunction
	keyword // calls nothing
	takesLock
	givesLock
	setsConfig
	readsNumber
	takesNumber
)

// functions are the names that stand in front of a parenthesis in most queries. Each is
// one of pg_catalog, where nobody but a superuser can put another in its place.
var functions = func() map[string]functionKind {
	m := map[string]functionKind{}
	for kind, names := range map[functionKind][]string{
		harmlessFunction: {knownPure, knownInspecting, knownVolatile, knownLater},
		keyword:          {parenthesized},
		takesLock:        {"pg_advisory_lock pg_advisory_lock_shared pg_try_advisory_lock pg_try_advisory_lock_shared"},
		givesLock:        {"pg_advisory_unlock pg_advisory_unlock_shared pg_advisory_unlock_all"},
		setsConfig:       {"set_config"},
		readsNumber:      {"currval lastval"},
		takesNumber:      {"nextval setval"},
	} {
		for _, name := range strings.Fields(strings.Join(names, " ")) {
			m[name] = kind
		}
	}
	return m
}()

// longestFunction bounds the names in functions, in bytes.
const longestFunction = 40

// knownPure are functions that compute a value, by their kinds: aggregates and windows;
// text; numbers; dates and times; JSON; arrays and ranges; text search; network, bits,
// geometry, XML and the rest.
const knownPure = `
array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp every json_agg json_object_agg jsonb_agg
jsonb_object_agg max min mode percentile_cont percentile_disc range_agg range_intersect_agg regr_avgx regr_avgy regr_count
regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy stddev stddev_pop stddev_samp string_agg sum var_pop var_samp
variance xmlagg cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number

ascii bit_length btrim char_length character_length chr concat concat_ws convert convert_from convert_to decode encode format
initcap is_normalized left length lower lpad ltrim md5 normalize octet_length parse_ident quote_ident quote_literal
quote_nullable regexp_count regexp_instr regexp_like regexp_match regexp_matches regexp_replace regexp_split_to_array
regexp_split_to_table regexp_substr repeat replace reverse right rpad rtrim split_part starts_with string_to_array
string_to_table strpos substr to_ascii to_char to_hex to_number translate unistr upper textlike texticlike text bpchar name

abs acos acosd acosh asin asind asinh atan atan2 atan2d atand atanh cbrt ceil ceiling cos cosd cosh cot cotd degrees div
exp factorial floor gcd lcm ln log log10 min_scale mod pi pow power radians round scale sign sin sind sinh sqrt tan tand tanh
trim_scale trunc width_bucket int2 int4 int8 float4 float8 money bool oid

age date date_bin date_part date_trunc isfinite justify_days justify_hours justify_interval make_date make_interval make_time
make_timestamp make_timestamptz now statement_timestamp timezone to_date to_timestamp transaction_timestamp overlaps
timestamptz timetz

array_to_json json_array_elements json_array_elements_text json_array_length json_build_array json_build_object json_each
json_each_text json_extract_path json_extract_path_text json_object json_object_keys json_populate_record
json_populate_recordset json_strip_nulls json_to_record json_to_recordset json_typeof jsonb_array_elements
jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text jsonb_exists
jsonb_exists_all jsonb_exists_any jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_keys
jsonb_path_exists jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz jsonb_path_query jsonb_path_query_array
jsonb_path_query_array_tz jsonb_path_query_first jsonb_path_query_first_tz jsonb_path_query_tz jsonb_populate_record
jsonb_populate_recordset jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset
jsonb_typeof row_to_json to_json to_jsonb

array_append array_cat array_dims array_fill array_length array_lower array_ndims array_position array_positions array_prepend
array_remove array_replace array_to_string array_upper cardinality generate_series generate_subscripts trim_array unnest
daterange int4range int8range numrange tsrange tstzrange datemultirange int4multirange int8multirange nummultirange
tsmultirange tstzmultirange isempty lower_inc lower_inf multirange range_merge upper_inc upper_inf

array_to_tsvector get_current_ts_config json_to_tsvector jsonb_to_tsvector numnode phraseto_tsquery plainto_tsquery querytree
setweight strip to_tsquery to_tsvector ts_debug ts_delete ts_filter ts_headline ts_lexize ts_parse ts_rank ts_rank_cd
ts_token_type tsquery_phrase tsvector_to_array websearch_to_tsquery

abbrev broadcast cidr family host hostmask inet_merge inet_same_family macaddr8_set7bit masklen netmask network set_masklen
bit_count get_bit get_byte set_bit set_byte sha224 sha256 sha384 sha512 area bound_box box center circle diagonal diameter
height isclosed isopen line lseg npoints path pclose point polygon popen radius slope width enum_first enum_last enum_range
num_nonnulls num_nulls xml_is_well_formed xml_is_well_formed_content xml_is_well_formed_document xmlcomment xpath xpath_exists
xml hashtext hashtextextended
`

// knownInspecting are functions that tell about the server, the session and the catalog,
// as drivers, ORMs and administrators ask them.
const knownInspecting = `
col_description current_database current_schema current_schemas current_setting format_type has_any_column_privilege
has_column_privilege has_database_privilege has_foreign_data_wrapper_privilege has_function_privilege has_language_privilege
has_parameter_privilege has_schema_privilege has_sequence_privilege has_server_privilege has_table_privilege
has_tablespace_privilege has_type_privilege inet_client_addr inet_client_port inet_server_addr inet_server_port
obj_description oidvectortypes pg_available_extension_versions pg_available_extensions pg_backend_pid pg_char_to_encoding
pg_client_encoding pg_collation_for pg_collation_is_visible pg_column_compression pg_column_size pg_conf_load_time
pg_conversion_is_visible pg_current_snapshot pg_current_xact_id pg_current_xact_id_if_assigned pg_cursor pg_describe_object
pg_encoding_max_length pg_encoding_to_char pg_extension_update_paths pg_filenode_relation pg_function_is_visible
pg_get_constraintdef pg_get_expr pg_get_function_arguments pg_get_function_arg_default pg_get_function_identity_arguments
pg_get_function_result pg_get_function_sqlbody pg_get_functiondef pg_get_indexdef pg_get_keywords pg_get_object_address
pg_get_partition_constraintdef pg_get_partkeydef pg_get_publication_tables pg_get_replica_identity_index
pg_get_replication_slots pg_get_ruledef pg_get_serial_sequence pg_get_statisticsobjdef pg_get_statisticsobjdef_columns
pg_get_triggerdef pg_get_userbyid pg_get_viewdef pg_has_role pg_identify_object pg_identify_object_as_address
pg_index_column_has_property pg_index_has_property pg_indexam_has_property pg_is_other_temp_schema pg_listening_channels
pg_my_temp_schema pg_opclass_is_visible pg_operator_is_visible pg_opfamily_is_visible pg_options_to_table pg_partition_root
pg_postmaster_start_time pg_prepared_statement pg_relation_filenode pg_relation_filepath pg_relation_is_publishable
pg_relation_is_updatable pg_column_is_updatable pg_sequence_parameters pg_settings_get_flags pg_show_all_settings
pg_size_bytes pg_size_pretty pg_snapshot_xip pg_snapshot_xmax pg_snapshot_xmin pg_stat_get_activity
pg_stat_get_progress_info pg_stat_get_wal_senders pg_stat_get_numscans pg_statistics_obj_is_visible pg_table_is_visible
pg_tablespace_location pg_timezone_abbrevs pg_timezone_names pg_trigger_depth pg_ts_config_is_visible pg_ts_dict_is_visible
pg_ts_parser_is_visible pg_ts_template_is_visible pg_type_is_visible pg_typeof pg_visible_in_snapshot pg_wal_lsn_diff
pg_walfile_name row_security_active shobj_description to_regclass to_regcollation to_regnamespace to_regoper to_regoperator
to_regproc to_regprocedure to_regrole to_regtype txid_current txid_current_if_assigned txid_current_snapshot
txid_snapshot_xip txid_snapshot_xmax txid_snapshot_xmin txid_visible_in_snapshot version
`

// knownVolatile are functions that change something, or depend on something that
// changes, and leave the session as it is: what they hold ends with the transaction. The
// seed of random is nobody's secret.
const knownVolatile = `
bernoulli system clock_timestamp current_query gen_random_uuid lo_close lo_creat lo_create lo_from_bytea lo_get lo_lseek
lo_lseek64 lo_open lo_put lo_tell lo_tell64 lo_truncate lo_truncate64 lo_unlink loread lowrite pg_advisory_xact_lock
pg_advisory_xact_lock_shared pg_blocking_pids pg_cancel_backend pg_collation_actual_version pg_control_checkpoint
pg_control_init pg_control_recovery pg_control_system pg_current_logfile pg_current_wal_flush_lsn pg_current_wal_insert_lsn
pg_current_wal_lsn pg_database_collation_actual_version pg_database_size pg_export_snapshot pg_indexes_size
pg_is_in_recovery pg_is_wal_replay_paused pg_isolation_test_session_is_blocked pg_jit_available pg_last_committed_xact
pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_lock_status pg_logical_emit_message
pg_notification_queue_usage pg_notify pg_partition_ancestors pg_partition_tree pg_prepared_xact pg_relation_size
pg_safe_snapshot_blocking_pids pg_sequence_last_value pg_show_replication_origin_status pg_sleep pg_sleep_for
pg_sleep_until pg_stat_clear_snapshot pg_switch_wal pg_table_size pg_tablespace_size pg_terminate_backend
pg_total_relation_size pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared pg_xact_commit_timestamp pg_xact_status
random setseed timeofday txid_status
`

// knownLater are functions of the first two kinds that came after PostgreSQL 15.
const knownLater = `
any_value array_reverse array_sample array_shuffle array_sort casefold crc32 crc32c date_add date_subtract erf erfc gamma
lgamma pg_input_error_info pg_input_is_valid random_normal to_bin to_oct to_regtypemod unicode_assigned uuid_extract_timestamp
uuid_extract_version uuidv4 uuidv7 xmltext
`

// parenthesized are the words of the grammar in front of a parenthesis, and the types
// that take a length. Some could be names of functions too, and are taken for none.
const parenthesized = `
in values any all some exists and or not as on using cast case when then else row array extract coalesce nullif greatest least
position substring overlay trim treat grouping sets cube rollup within filter over from where select having limit offset union
except intersect distinct join lateral returning with between like ilike similar is set by only to end key unique check primary
default into table references constraint exclude include identity always generated conflict materialized window for do also
instead variadic collate operator asc desc zone insert update group order fetch escape returns columns
xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable
json json_array json_arrayagg json_exists json_objectagg json_query json_scalar json_serialize json_table json_value
numeric decimal dec varchar char character varying nchar national bit varbit time timestamp interval float precision
current_time current_timestamp localtime localtimestamp merge_action
`
